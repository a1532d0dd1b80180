import { checkInteger, checkKeys } from '../check.ts';
import { invalid } from '../errors.ts';
import type { NativeZones } from '../native.ts';
import { parseSize, type Size } from '../size.ts';
import { checkBytes } from './request.ts';

/** The zones of a handler that is a zoned device; it keeps their state. */
export interface HandlerZones {
  /** From the start of one zone to the start of the next: a power of two from 64 KiB to 512 GiB. */
  readonly size: Size;
  /**
   * Most zones open at once; 0: all.
   * @default 0
   */
  readonly maxOpen?: number | undefined;
  /**
   * Most zones active at once, that is open or partly written; 0: all.
   * @default 0
   */
  readonly maxActive?: number | undefined;
}

/** By the numbers of linux/blkzoned.h, `BLK_ZONE_COND_*`. */
const CONDITIONS = {
  conventional: 0,
  empty: 1,
  implicitlyOpen: 2,
  explicitlyOpen: 3,
  closed: 4,
  readOnly: 13,
  full: 14,
  offline: 15,
} as const;

/** What a zone is like; `conventional` ones are written anywhere and have no write pointer. */
export type ZoneCondition = keyof typeof CONDITIONS;

/** A zone, as `reportZones` tells of it. */
export interface Zone {
  /** Where it begins, in bytes. */
  readonly offset: number;
  readonly condition: ZoneCondition;
  /**
   * Where it is written next, in bytes.
   * @default its beginning
   */
  readonly writePointer?: number | undefined;
  /**
   * How much of it can be written, in bytes.
   * @default all of it
   */
  readonly capacity?: number | undefined;
}

/** Bytes of a `struct blk_zone` (linux/blkzoned.h). */
export const ZONE_BYTES = 64;
const [CONVENTIONAL, SEQUENTIAL] = [1, 2];
const MAX_COUNT = 1 << 20;

/** Checks zones and puts them as the addon takes them. */
export function toNativeZones(zones: HandlerZones): NativeZones {
  checkKeys(zones, 'zones', ['size', 'maxOpen', 'maxActive']);
  const { size, maxOpen = 0, maxActive = 0 } = zones;
  const bytes = parseSize(size, 'zones.size');
  if (!Number.isInteger(Math.log2(bytes)) || bytes < 65_536 || bytes > 2 ** 39) {
    throw invalid(`zones.size is ${size}; it must be a power of two from 64 KiB to 512 GiB`);
  }
  return {
    size: bytes,
    conventional: 0,
    maxOpen: checkInteger(maxOpen, 'zones.maxOpen', 0, MAX_COUNT),
    maxActive: checkInteger(maxActive, 'zones.maxActive', 0, MAX_COUNT),
  };
}

/**
 * Writes a report of zones, as the kernel reads it: what is missing is zeros.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`: that is no report.
 */
export function writeReport(data: Buffer, zones: unknown, zoneSize: number): void {
  if (!Array.isArray(zones)) throw invalid('reportZones did not answer an array of zones');
  data.fill(0);
  const count = Math.min(zones.length, Math.floor(data.length / ZONE_BYTES));
  for (const [index, zone] of (zones as Zone[]).slice(0, count).entries()) {
    writeZone(data.subarray(index * ZONE_BYTES), zone, zoneSize);
  }
}

function writeZone(to: Buffer, zone: Zone, zoneSize: number): void {
  const { offset, condition, writePointer = offset, capacity = zoneSize } = zone;
  if (!Object.hasOwn(CONDITIONS, condition)) {
    throw invalid(`the condition of a zone is ${String(condition)}; there is no such`);
  }
  const sectors = (bytes: number, name: string): bigint => BigInt(checkBytes(bytes, name)) >> 9n;
  to.writeBigUInt64LE(sectors(offset, 'the offset of a zone'), 0);
  to.writeBigUInt64LE(sectors(zoneSize, 'the size of a zone'), 8);
  to.writeBigUInt64LE(sectors(writePointer, 'the writePointer of a zone'), 16);
  to.writeUInt8(condition === 'conventional' ? CONVENTIONAL : SEQUENTIAL, 24);
  to.writeUInt8(CONDITIONS[condition], 25);
  to.writeBigUInt64LE(sectors(capacity, 'the capacity of a zone'), 32);
}

/**
 * Where a zone append went, if that can be.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function checkPlace(place: unknown, zone: number, length: number, zoneSize: number): number {
  const fits =
    typeof place === 'number' &&
    Number.isSafeInteger(place) &&
    place % 512 === 0 &&
    place >= zone &&
    place + length <= zone + zoneSize;
  if (fits) return place;
  throw invalid(
    `zoneAppend answered ${String(place)}; it must say where in the zone at ${zone} the data is`,
  );
}
