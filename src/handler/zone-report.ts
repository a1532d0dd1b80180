import { invalid } from '../errors.ts';
import { checkBytes } from './request.ts';

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
