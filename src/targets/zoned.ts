import { checkBoolean, checkInteger, checkKeys, checkAbsolutePath } from '../check.ts';
import { invalid, wrong } from '../errors.ts';
import type { NativeTarget, NativeZones } from '../native.ts';
import { parseSize, type Size } from '../size.ts';

/** Options of {@link targets.zoned}. */
export interface ZonedTargetOptions {
  /** The distance between the starts of zones: a power of two from 64 KiB to 512 GiB. */
  readonly zoneSize: Size;
  /**
   * The writable part of a zone: a multiple of 4 KiB.
   * @default the whole zone
   */
  readonly zoneCapacity?: Size | undefined;
  /**
   * A file or a block device for the data.
   * @default memory, freed with the device
   */
  readonly path?: string | URL | undefined;
  /**
   * The file with the state of the zones for the next server; only with `path`. A regular file for this
   * purpose alone. Where the data survives a reboot, so must this file: for a block device choose a path
   * outside `/dev`, which lies in memory.
   * @default the path followed by `.zones`
   */
  readonly state?: string | URL | undefined;
  /**
   * Whether ublk makes a missing state file for data that is not empty (a block device always counts as
   * not empty): all zones start empty. ublk never replaces an existing state file. Only with `path`.
   * @default false
   */
  readonly create?: boolean | undefined;
  /**
   * The size of the device, rounded down to whole zones; at most 999 GiB.
   * @default the file's size; required in memory
   */
  readonly size?: Size | undefined;
  /**
   * The number of conventional zones at the beginning: clients may write anywhere, in any order.
   * @default 0
   */
  readonly conventionalZones?: number | undefined;
  /**
   * The largest number of open zones; 0: all zones.
   * @default 0
   */
  readonly maxOpenZones?: number | undefined;
  /**
   * The largest number of active zones, open or partly written; 0: all zones.
   * @default 0
   */
  readonly maxActiveZones?: number | undefined;
}

/** A host-managed zoned target. */
export interface ZonedTarget extends ZonedTargetOptions {
  readonly kind: 'zoned';
}

const KEYS = [
  'zoneSize',
  'zoneCapacity',
  'path',
  'state',
  'create',
  'size',
  'conventionalZones',
  'maxOpenZones',
  'maxActiveZones',
];
const MAX_COUNT = 1 << 20;

/**
 * A zoned device like shingled disks and ZNS SSDs (Linux 6.6): clients write each zone in order, at the
 * write pointer, and reset whole zones. Operations: report, open, close, finish, reset and append.
 *
 * @example
 * await using device = await createDevice({
 *   target: targets.zoned({ size: '4GiB', zoneSize: '64MiB', maxOpenZones: 14 }),
 * });
 *
 * `createDevice` fails with `ERR_UBLK_NO_BACKEND` for a missing state file and data that is not empty,
 * with `ERR_UBLK_BAD_BACKEND` for a `state` in memory or a file other than the state of these zones
 * (ublk leaves the file unchanged), and with `ERR_UBLK_BUSY` for a state file in use by another target.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function zonedTarget(options: ZonedTargetOptions): ZonedTarget {
  checkKeys(options, 'targets.zoned()', KEYS);
  const target: ZonedTarget = Object.freeze({ ...options, kind: 'zoned' });
  toNativeZoned(target);
  return target;
}

/** Checks a zoned target and converts the target for the addon. */
export function toNativeZoned(target: ZonedTarget): NativeTarget {
  checkKeys(target, 'a zoned target', ['kind', ...KEYS]);
  const { path, size, state, create } = target;
  if (path === undefined && size === undefined) {
    throw invalid('a zoned target needs a size or a path', 'in memory it is as large as size says');
  }
  if (path === undefined && state !== undefined) {
    throw wrong('state', 'is given without path', 'zones in memory are gone with the device');
  }
  if (path === undefined && create !== undefined) {
    throw wrong('create', 'is given without path', 'zones in memory are always made');
  }
  return {
    kind: 'zoned',
    ...(path === undefined ? {} : { path: checkAbsolutePath(path, 'path') }),
    ...(size === undefined ? {} : { size: parseSize(size) }),
    zones: toNativeZones(target),
  };
}

function toNativeZones(target: ZonedTarget): NativeZones {
  const { zoneCapacity, conventionalZones = 0, maxOpenZones = 0, maxActiveZones = 0 } = target;
  const { create = false } = target;
  const maxOpen = checkInteger(maxOpenZones, 'maxOpenZones', 0, MAX_COUNT);
  const maxActive = checkInteger(maxActiveZones, 'maxActiveZones', 0, MAX_COUNT);
  if (maxActive !== 0 && maxOpen > maxActive) {
    throw wrong(
      'maxOpenZones',
      `is ${maxOpen}, more than maxActiveZones (${maxActive}); open zones are active`,
    );
  }
  return {
    size: checkZoneSize(target.zoneSize),
    ...(zoneCapacity === undefined ? {} : { capacity: parseSize(zoneCapacity, 'zoneCapacity') }),
    conventional: checkInteger(conventionalZones, 'conventionalZones', 0, MAX_COUNT),
    maxOpen,
    maxActive,
    ...(target.state === undefined ? {} : { state: checkAbsolutePath(target.state, 'state') }),
    ...(checkBoolean(create, 'create') ? { create } : {}),
  };
}

function checkZoneSize(size: Size): number {
  const bytes = parseSize(size, 'zoneSize');
  const isPowerOfTwo = Number.isInteger(Math.log2(bytes));
  if (isPowerOfTwo && bytes >= 65_536 && bytes <= 2 ** 39) return bytes;
  throw wrong('zoneSize', `is ${size}; it must be a power of two from 64 KiB to 512 GiB`);
}
