import { checkBoolean, checkInteger, checkOneOf } from './check.ts';
import { wrong } from './errors.ts';
import type { Recovery } from './info.ts';
import type { NativeDeviceOptions } from './native.ts';

/** Features of a device, independent of the target. */
export interface FeatureOptions {
  /**
   * Whether, and how, the device survives the end of its server, for `recoverDevice`.
   * Not with buffers `shared`. With exchange `batch` take `reissue`: with `queue`, requests that arrive while a
   * server leaves may fail, and the kernel (up to 7.3) fails all from `quiesceDevice()` on.
   * @default the device ends with its server
   */
  readonly recovery?: Recovery | undefined;
  /**
   * Whether the kernel looks for partitions when the device starts (`NO_AUTO_PART_SCAN`; `false`
   * needs Linux 7.0).
   * @default true
   */
  readonly partScan?: boolean | undefined;
  /**
   * A device of a user other than root; only this user and root may open the device
   * (`UNPRIVILEGED_DEV`, Linux 6.3). The device copies, and has no recovery. `ublk doctor` reports the
   * requirements.
   *
   * The kernel kills the server with SIGKILL, and with the server all its devices, when a request of
   * an unprivileged device is 30 s old. A request without an answer of the file within 20 s therefore
   * fails with `ETIMEDOUT`, and later requests of the tag fail until the file has answered. ublk
   * refuses a delay of 20 s, a handler's `timeoutMs` above 20000, and `buffers: 'get-data'`.
   * @default false
   */
  readonly unprivileged?: boolean | undefined;
  /**
   * The distance between the request descriptors in the kernel's shared memory: a multiple of 8 from 24
   * to 256 bytes (`IO_DESC_SIZE`, Linux 7.3).
   * @default 24
   */
  readonly ioDescSize?: number | undefined;
}

export const FEATURE_KEYS: readonly string[] = [
  'recovery',
  'partScan',
  'unprivileged',
  'ioDescSize',
];

export const RECOVERIES: readonly Recovery[] = ['queue', 'reissue', 'fail'];

/** Options as the addon takes them, as far as they have been checked. */
export type Given = { -readonly [K in keyof NativeDeviceOptions]?: NativeDeviceOptions[K] };

/** Checks the feature options and converts the options for the addon. */
export function toNativeFeatures(options: FeatureOptions): Given {
  const { recovery, partScan, unprivileged, ioDescSize } = options;
  const given: Given = {};
  if (recovery !== undefined) given.recovery = checkOneOf(recovery, 'recovery', RECOVERIES);
  if (partScan !== undefined) given.partScan = checkBoolean(partScan, 'partScan');
  if (unprivileged !== undefined) given.unprivileged = checkBoolean(unprivileged, 'unprivileged');
  if (unprivileged && recovery !== undefined) {
    throw wrong(
      'unprivileged',
      'and recovery exclude each other',
      'the kernel has no recovery for the devices of users who are not root',
    );
  }
  if (ioDescSize !== undefined) given.ioDescSize = checkDescriptor(ioDescSize);
  return given;
}

function checkDescriptor(size: number): number {
  const bytes = checkInteger(size, 'ioDescSize', 24, 256);
  if (bytes % 8 === 0) return bytes;
  throw wrong('ioDescSize', `is ${size}; it must be a multiple of 8 from 24 to 256`);
}
