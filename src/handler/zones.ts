import { checkInteger, checkKeys } from '../check.ts';
import { invalid, wrong } from '../errors.ts';
import type { NativeZones } from '../native.ts';
import { parseSize, type Size } from '../size.ts';
import { checkBytes } from './request.ts';

/** The zones of a zoned handler; the handler keeps the zones' state. */
export interface HandlerZones {
  /** The distance between the starts of zones: a power of two from 64 KiB to 512 GiB. */
  readonly size: Size;
  /**
   * The largest number of open zones; 0: all zones.
   * @default 0
   */
  readonly maxOpen?: number | undefined;
  /**
   * The largest number of active zones, open or partly written; 0: all zones.
   * @default 0
   */
  readonly maxActive?: number | undefined;
}

/** Conditions with the numbers of linux/blkzoned.h, `BLK_ZONE_COND_*`. */
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

/** The condition of a zone; clients write anywhere in a `conventional` zone, without a write pointer. */
export type ZoneCondition = keyof typeof CONDITIONS;

/** A zone in the answer of `reportZones`. */
export interface Zone {
  /** The start of the zone, in bytes. */
  readonly offset: number;
  readonly condition: ZoneCondition;
  /**
   * The write pointer, in bytes.
   * @default the start of the zone
   */
  readonly writePointer?: number | undefined;
  /**
   * The writable part, in bytes.
   * @default the whole zone
   */
  readonly capacity?: number | undefined;
}

/** Bytes of a `struct blk_zone` (linux/blkzoned.h). */
export const ZONE_BYTES = 64;
const [CONVENTIONAL, SEQUENTIAL] = [1, 2];
const MAX_COUNT = 1 << 20;

/** Checks zones and converts the zones for the addon. */
export function toNativeZones(zones: HandlerZones): NativeZones {
  checkKeys(zones, 'zones', ['size', 'maxOpen', 'maxActive'], 'zones');
  const { size, maxOpen = 0, maxActive = 0 } = zones;
  const bytes = parseSize(size, 'zones.size');
  if (!Number.isInteger(Math.log2(bytes)) || bytes < 65_536 || bytes > 2 ** 39) {
    throw wrong('zones.size', `is ${size}; it must be a power of two from 64 KiB to 512 GiB`);
  }
  return {
    size: bytes,
    conventional: 0,
    maxOpen: checkInteger(maxOpen, 'zones.maxOpen', 0, MAX_COUNT),
    maxActive: checkInteger(maxActive, 'zones.maxActive', 0, MAX_COUNT),
  };
}

/**
 * Writes a report of zones in the kernel's format: zeros follow the last zone.
 *
 * The kernel repeats the request from the end of the previous report on, for ever after an empty report.
 * A report therefore has at least 1 zone, and the zones follow each other from the requested zone on.
 *
 * @param first The start of the first requested zone, in bytes.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for an invalid report.
 */
export function writeReport(data: Buffer, zones: unknown, zoneSize: number, first = 0): void {
  if (!Array.isArray(zones)) {
    throw invalid(`reportZones answered ${String(zones)}; it must answer an array of zones`);
  }
  if (zones.length === 0) {
    throw invalid(
      `reportZones answered no zone; it must tell of the zone at ${first}`,
      'the kernel asks for zones of the device only: answer one at least, from request.offset on',
    );
  }
  data.fill(0);
  const count = Math.min(zones.length, Math.floor(data.length / ZONE_BYTES));
  for (const [index, zone] of (zones as Zone[]).slice(0, count).entries()) {
    const expected = first + index * zoneSize;
    if (zone?.offset !== expected) {
      const place = zone == null ? String(zone) : `a zone at ${zone.offset}`;
      throw invalid(`zone ${index} of the report is ${place}; it must be the zone at ${expected}`);
    }
    writeZone(data.subarray(index * ZONE_BYTES), zone, zoneSize);
  }
}

function writeZone(to: Buffer, zone: Zone, zoneSize: number): void {
  const { offset, condition, writePointer = offset, capacity = zoneSize } = zone;
  if (!Object.hasOwn(CONDITIONS, condition)) {
    throw invalid(`the condition of a zone is ${String(condition)}; there is no such`);
  }
  const end = offset + zoneSize;
  to.writeBigUInt64LE(toSectors(offset, 'offset', 0, offset), 0);
  to.writeBigUInt64LE(toSectors(zoneSize, 'size', zoneSize, zoneSize), 8);
  to.writeBigUInt64LE(toSectors(writePointer, 'writePointer', offset, end), 16);
  to.writeUInt8(condition === 'conventional' ? CONVENTIONAL : SEQUENTIAL, 24);
  to.writeUInt8(CONDITIONS[condition], 25);
  to.writeBigUInt64LE(toSectors(capacity, 'capacity', 512, zoneSize), 32);
}

function toSectors(value: unknown, name: string, min: number, max: number): bigint {
  const bytes = checkBytes(value, `the ${name} of a zone`);
  if (bytes % 512 === 0 && bytes >= min && bytes <= max) return BigInt(bytes) >> 9n;
  throw invalid(
    `the ${name} of a zone is ${bytes}; it must be a multiple of 512 from ${min} to ${max}`,
  );
}

/**
 * Checks the answer to a zone append: the place of the data.
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
