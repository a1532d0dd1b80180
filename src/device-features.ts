import { checkBoolean, checkCpus, checkInteger, checkOneOf } from './check.ts';
import { invalid } from './errors.ts';
import type { Recovery } from './info.ts';
import type { NativeDeviceOptions } from './native.ts';

/** A device's threads, and where they run. */
export interface PlacementOptions {
  /**
   * How many threads the tags of all queues are dealt out to, one after another, 1 to 1024, so that
   * a client on one CPU keeps them all busy (`PER_IO_DAEMON`, Linux 6.16, unless it is 1). With a
   * pool, in how many parts its reactors get the device. Not with `exchange: 'batch'`, nor with
   * handlers.
   * @default each queue has a thread of its own
   */
  readonly threads?: number | undefined;
  /**
   * Two threads where there was one: the first fetches requests and commits them, the second
   * registers their buffers with a ring of its own and does the I/O (`BUF_REG_OFF_DAEMON`, Linux
   * 6.17). With `buffers: 'register'`, which it chooses where no mode is asked for; not for
   * handlers and zoned targets, nor with a pool.
   * @default false
   */
  readonly ringsApart?: boolean | undefined;
  /**
   * Whether each queue's thread stays on the CPUs that the kernel maps to the queue; threads that
   * share all queues stay nowhere by themselves.
   * @default true
   */
  readonly pin?: boolean | undefined;
  /** The CPUs that all threads of the device stay on instead, by number; not with `pin`. */
  readonly affinity?: readonly number[] | undefined;
}

/** What a device is, besides what it serves and how. */
export interface FeatureOptions extends PlacementOptions {
  /**
   * Whether the device outlives its server, whatever ends that, for `recoverDevice`, and how.
   * Not with buffers `shared`. With exchange `batch` take `reissue`: with `queue`, requests that arrive while a
   * server leaves may fail, and the kernel (up to 7.3) fails all from `quiesceDevice()` on.
   * @default it ends with its server
   */
  readonly recovery?: Recovery | undefined;
  /**
   * Whether the kernel looks for partitions when the device starts (`NO_AUTO_PART_SCAN`; `false`
   * needs Linux 7.0).
   * @default true
   */
  readonly partScan?: boolean | undefined;
  /**
   * A device for a user who is not root; root alone may open it besides (`UNPRIVILEGED_DEV`,
   * Linux 6.3). It copies, and has no recovery. `ublk doctor` tells what it needs.
   *
   * The kernel kills the server with SIGKILL, and with it all of the server's devices, when a
   * request of such a device is 30 s old. So a request whose file does not answer within 20 s fails
   * with `ETIMEDOUT`, and others of its tag fail until the file has answered. A delay of 20 s, a
   * handler's `timeoutMs` above 20000, and `buffers: 'get-data'` are refused.
   * @default false
   */
  readonly unprivileged?: boolean | undefined;
  /**
   * How far apart the request descriptors are that the kernel shares with the server: a multiple
   * of 8 from 24 to 256 bytes (`IO_DESC_SIZE`, Linux 7.3).
   * @default 24
   */
  readonly ioDescSize?: number | undefined;
}

export const PLACEMENT_KEYS: readonly string[] = ['threads', 'ringsApart', 'pin', 'affinity'];
export const FEATURE_KEYS: readonly string[] = [
  ...PLACEMENT_KEYS,
  'recovery',
  'partScan',
  'unprivileged',
  'ioDescSize',
];

export const RECOVERIES: readonly Recovery[] = ['queue', 'reissue', 'fail'];

type Given = { -readonly [K in keyof NativeDeviceOptions]?: NativeDeviceOptions[K] };

/** Checks who shall serve a device and where, as the addon takes it. */
export function toNativePlacement(options: PlacementOptions): Given {
  const { threads, ringsApart, pin, affinity } = options;
  const given: Given = {};
  if (threads !== undefined) given.threads = checkInteger(threads, 'threads', 1, 1024);
  if (ringsApart !== undefined) given.ringsApart = checkBoolean(ringsApart, 'ringsApart');
  if (pin !== undefined) given.pin = checkBoolean(pin, 'pin');
  if (affinity === undefined) return given;
  if (pin) throw invalid('pin and affinity exclude each other', 'leave one of them out');
  return { ...given, affinity: checkCpus(affinity, 'affinity') };
}

/** Checks what a device shall be, as the addon takes it. */
export function toNativeFeatures(options: FeatureOptions): Given {
  const { recovery, partScan, unprivileged, ioDescSize } = options;
  const given = toNativePlacement(options);
  if (recovery !== undefined) given.recovery = checkOneOf(recovery, 'recovery', RECOVERIES);
  if (partScan !== undefined) given.partScan = checkBoolean(partScan, 'partScan');
  if (unprivileged !== undefined) given.unprivileged = checkBoolean(unprivileged, 'unprivileged');
  if (unprivileged && recovery !== undefined) {
    throw invalid(
      'unprivileged and recovery exclude each other',
      'the kernel has no recovery for the devices of users who are not root',
    );
  }
  if (ioDescSize !== undefined) given.ioDescSize = checkDescriptor(ioDescSize);
  return given;
}

function checkDescriptor(size: number): number {
  const bytes = checkInteger(size, 'ioDescSize', 24, 256);
  if (bytes % 8 === 0) return bytes;
  throw invalid(`ioDescSize is ${size}; it must be a multiple of 8 from 24 to 256`);
}
