import { checkInteger, checkKeys, checkOneOf } from '../check.ts';
import { DEVICE_KEYS, toNativeOptions, type DeviceOptions } from '../options.ts';
import type { HandlerModule } from '../handler/module.ts';
import type { Handler } from '../handler/types.ts';
import type { Target } from '../targets/index.ts';
import { SimulatedDisk } from './disk.ts';
import { toNativeFaults, type Faults } from './faults.ts';

/** Options of {@link simulate}: most options of a device, and the faults. */
export interface SimulateOptions extends Omit<DeviceOptions, 'target' | 'id' | 'pin'> {
  /**
   * The source of all chance, 0 to 2^32 - 1. With a single queue and a native target, the same seed and
   * the same operations give the same results.
   * @default 1
   */
  readonly seed?: number | undefined;
  /**
   * The injected faults; see {@link SimulatedDisk.setFaults}.
   * @default none; requests overtake each other
   */
  readonly faults?: Faults | undefined;
  /**
   * The simulated kernel: 6.12 has no zero copy.
   * @default '7.3'
   */
  readonly kernel?: '7.3' | '6.12' | undefined;
}

const KEYS = [
  'seed',
  'faults',
  'kernel',
  ...DEVICE_KEYS.filter((key) => !['target', 'id', 'pin'].includes(key)),
];

/**
 * Serves a target or a handler on a simulated kernel and returns a disk for reads and writes. The
 * simulation needs Linux and the addon, but no ublk, no root and no device.
 *
 * The target's files must exist. Reads reach the files; writes stay in a simulated cache until the
 * target syncs (for a flush or a FUA write), and {@link SimulatedDisk.powerCut} loses or keeps
 * unsynced writes. Closing the disk writes all data to the files. The same rules hold for a handler's
 * backends; a power cut does not touch a handler's own memory. The default exchange is `'per-io'`.
 *
 * @example
 * test('a flush survives a power cut', async () => {
 *   await using disk = await simulate(targets.file('a.img'), { seed: 7 });
 *   await disk.write(0, Buffer.alloc(4096, 1));
 *   await disk.flush();
 *   await disk.powerCut();
 *   expect(await disk.read(0, 4096)).toEqual(Buffer.alloc(4096, 1));
 * });
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` before anything is touched;
 * `ERR_UBLK_NO_BACKEND`, `ERR_UBLK_BAD_BACKEND`, `ERR_UBLK_BUSY`, `ERR_UBLK_UNSUPPORTED`,
 * `ERR_UBLK_UNSUPPORTED_PLATFORM`, `ERR_UBLK_NO_ADDON`.
 */
export async function simulate(
  // oxlint-disable-next-line typescript/no-explicit-any -- whatever its backends are called
  target: Target | Handler<any> | HandlerModule,
  options: SimulateOptions = {},
): Promise<SimulatedDisk> {
  checkKeys(options, 'simulate()', KEYS);
  const { seed = 1, faults = {}, kernel = '7.3', ...rest } = options;
  const simulation = {
    seed: checkInteger(seed, 'seed', 0, 2 ** 32 - 1),
    kernel: checkOneOf(kernel, 'kernel', ['7.3', '6.12']),
    faults: toNativeFaults(faults),
  };
  // Per-io, so that a power cut may fall between any two requests.
  const exchange = rest.exchange ?? 'per-io';
  const request = toNativeOptions({ ...rest, exchange, target });
  return SimulatedDisk.serve(target, request, simulation);
}
