import { checkKeys } from './check.ts';
import { debug } from './debug.ts';
import type { Device } from './device.ts';
import { unwrap } from './errors.ts';
import { serve, serverOf } from './handler/serve.ts';
import { lockMemoryFor } from './lock-memory.ts';
import { native, type NativeDevice, type NativeEnd, type NativeMaker } from './native.ts';
import { nameDisk } from './names.ts';
import { noteServer } from './notes.ts';
import { toNativeOptions, type DeviceOptions } from './options.ts';
import { createIn } from './pool.ts';
import { RecordKeeper } from './records/keep.ts';
import { watchDevice } from './serving.ts';

/** How {@link createDevice} can be cancelled. */
export interface CreateDeviceContext {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Creates a block device and serves the device. When the promise resolves, clients can open
 * `device.path`. Needs the right to use `/dev/ublk-control` (root, as a rule) and Linux 6.0; zero copy
 * needs 6.15.
 *
 * An abort takes effect when the kernel has answered: the device is removed again before the
 * promise rejects with `signal.reason`, so that nothing is left behind. If the kernel does not
 * remove the device, the promise resolves to the device in spite of the abort, since the device is
 * served.
 *
 * @example
 * await using device = await createDevice({ target: targets.file('disk.img'), queues: 2 });
 * console.log(device.path); // /dev/ublkb0
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` before anything is touched;
 * `ERR_UBLK_NO_DRIVER`, `ERR_UBLK_NO_IO_URING`, `ERR_UBLK_PERMISSION`, `ERR_UBLK_UNSUPPORTED`,
 * `ERR_UBLK_DEVICE_EXISTS`, `ERR_UBLK_NO_BACKEND`, `ERR_UBLK_BAD_BACKEND`, `ERR_UBLK_BUSY`,
 * `ERR_UBLK_TIMEOUT`, `ERR_UBLK_UNSUPPORTED_PLATFORM`, `ERR_UBLK_NO_ADDON`.
 */
export async function createDevice(
  options: DeviceOptions,
  context: CreateDeviceContext = {},
): Promise<Device> {
  const request = toNativeOptions(options);
  checkKeys(context, 'the context of createDevice()', ['signal']);
  const { signal } = context;
  signal?.throwIfAborted();
  lockMemoryFor(options);
  let onEnd!: (end: NativeEnd) => void;
  const ended = new Promise<NativeEnd>((resolve) => (onEnd = resolve));
  const server = await serverOf(options.target, request);
  const { pool } = options;
  const record = request.recovery === undefined ? undefined : new RecordKeeper(options);
  const make = async (maker: NativeMaker): Promise<NativeDevice> =>
    unwrap(await maker.createDevice(server?.request ?? request, onEnd, record?.write));
  const device = await serve(server, ended, () =>
    pool === undefined ? make(native()) : createIn(pool, ended, make),
  ).catch((error: unknown) => {
    record?.discard();
    throw error;
  });
  record?.attach(device);
  if (signal?.aborted && (await hasEnded(device.close()))) throw signal.reason;
  device.named(options.name);
  watchDevice(device, options);
  noteServer(device, request.target, options.name);
  nameDisk(device.id, options.name);
  return device;
}

/**
 * Whether a device that nobody wants any more has ended. A device that has not ended is served on, so
 * that its maker must get the device.
 */
export async function hasEnded(end: Promise<void>): Promise<boolean> {
  try {
    await end;
    return true;
  } catch (error) {
    debug('an abort comes to nothing: %O', error);
    return false;
  }
}
