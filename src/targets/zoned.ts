import { checkBoolean, checkInteger, checkKeys, checkAbsolutePath } from '../check.ts';
import { invalid } from '../errors.ts';
import type { NativeTarget, NativeZones } from '../native.ts';
import { parseSize, type Size } from '../size.ts';

/** What {@link targets.zoned} is asked for. */
export interface ZonedTargetOptions {
  /** From the start of one zone to the start of the next: a power of two from 64 KiB to 512 GiB. */
  readonly zoneSize: Size;
  /**
   * How much of a zone can be written: a multiple of 4 KiB.
   * @default all of it
   */
  readonly zoneCapacity?: Size | undefined;
  /**
   * A file or a block device to keep the data in.
   * @default memory, gone with the device
   */
  readonly path?: string | URL | undefined;
  /**
   * The file that keeps the state of the zones, so that the next server finds it; with `path` only.
   * A regular file of its own. It must outlive a reboot if the data does: over a block device it
   * cannot lie beside the data, since `/dev` is in memory.
   * @default the path with `.zones` behind it
   */
  readonly state?: string | URL | undefined;
  /**
   * Whether a state that is missing is made although the data is not empty (a block device always
   * counts as not empty): all zones are empty then. A state that is there is never replaced. With
   * `path` only.
   * @default false
   */
  readonly create?: boolean | undefined;
  /**
   * The size of the device, cut to whole zones; at most 999 GiB.
   * @default the file's size; in memory there is none
   */
  readonly size?: Size | undefined;
  /**
   * How many zones at the beginning are conventional: written anywhere, in any order.
   * @default 0
   */
  readonly conventionalZones?: number | undefined;
  /**
   * Most zones open at once; 0: all.
   * @default 0
   */
  readonly maxOpenZones?: number | undefined;
  /**
   * Most zones active at once, that is open or partly written; 0: all.
   * @default 0
   */
  readonly maxActiveZones?: number | undefined;
}

/** A host-managed zoned device. */
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
 * A zoned device, as shingled disks and ZNS SSDs are (Linux 6.6): each zone is written in order,
 * at its write pointer, and emptied as a whole. With report, open, close, finish, reset and append.
 *
 * @example
 * await using device = await createDevice({
 *   target: targets.zoned({ size: '4GiB', zoneSize: '64MiB', maxOpenZones: 14 }),
 * });
 *
 * Creating the device fails with `ERR_UBLK_NO_BACKEND` where the state is missing and the data is not
 * empty, with `ERR_UBLK_BAD_BACKEND` where `state` names anything else than the state of these zones
 * (which is left as it is) or a place in memory, and with `ERR_UBLK_BUSY` where another target has it.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function zonedTarget(options: ZonedTargetOptions): ZonedTarget {
  checkKeys(options, 'targets.zoned()', KEYS);
  const target: ZonedTarget = Object.freeze({ ...options, kind: 'zoned' });
  toNativeZoned(target);
  return target;
}

/** Checks a zoned target and puts it as the addon takes it. */
export function toNativeZoned(target: ZonedTarget): NativeTarget {
  checkKeys(target, 'a zoned target', ['kind', ...KEYS]);
  const { path, size, state, create } = target;
  if (path === undefined && size === undefined) {
    throw invalid('a zoned target needs a size or a path', 'in memory it is as large as size says');
  }
  if (path === undefined && state !== undefined) {
    throw invalid('state is given without path', 'zones in memory are gone with the device');
  }
  if (path === undefined && create !== undefined) {
    throw invalid('create is given without path', 'zones in memory are always made');
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
    throw invalid(
      `maxOpenZones is ${maxOpen}, more than maxActiveZones (${maxActive}); open zones are active`,
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
  throw invalid(`zoneSize is ${size}; it must be a power of two from 64 KiB to 512 GiB`);
}
