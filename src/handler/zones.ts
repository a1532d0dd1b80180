import { checkInteger, checkKeys } from '../check.ts';
import { wrong } from '../errors.ts';
import type { NativeZones } from '../native.ts';
import { parseSize, type Size } from '../size.ts';

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
