import { checkInteger, checkKeys, checkOneOf } from '../check.ts';
import { DEVICE_KEYS, toNativeOptions, type DeviceOptions } from '../create.ts';
import type { HandlerModule } from '../handler/module.ts';
import type { Handler } from '../handler/types.ts';
import type { Target } from '../targets/index.ts';
import { SimulatedDisk } from './disk.ts';
import { toNativeFaults, type Faults } from './faults.ts';

/** What {@link simulate} can be asked for: most of what a device can, and what goes wrong. */
export interface SimulateOptions extends Omit<DeviceOptions, 'target' | 'id' | 'pin'> {
  /**
   * Where all chance comes from, 0 to 2^32 - 1. With one queue and a target that answers by
   * itself, the same seed and the same operations give the same results.
   * @default 1
   */
  readonly seed?: number | undefined;
  /**
   * What goes wrong; see {@link SimulatedDisk.setFaults}.
   * @default nothing; requests overtake each other
   */
  readonly faults?: Faults | undefined;
  /**
   * Which kernel is simulated: 6.12 has no zero copy.
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
 * Serves a target or a handler on a simulated kernel, as `createDevice` does on the real one,
 * and gives the disk to read and write. Needs no ublk, no root and no device: only Linux and the
 * addon.
 *
 * The target's files must be there. They are read; what is written to them stays in a simulated
 * cache until the target syncs it (for a flush, a FUA write), and what is not synced is at the
 * mercy of {@link SimulatedDisk.powerCut}. When the disk closes, everything is written to them.
 * The same goes for the backends of a handler; what a handler keeps in memory is its own affair.
 * Unless told otherwise it answers requests one by one (`exchange: 'per-io'`).
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
  // One by one, so that a power cut falls between any two requests.
  const exchange = rest.exchange ?? 'per-io';
  const request = toNativeOptions({ ...rest, exchange, target });
  return SimulatedDisk.serve(target, request, simulation);
}
