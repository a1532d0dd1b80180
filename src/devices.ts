import { checkBoolean, checkCpus, checkInteger, checkKeys } from './check.ts';
import { unwrap } from './errors.ts';
import type { DeviceInfo, DeviceUsers, Feature, StopCheck } from './info.ts';
import { native } from './native.ts';
import { instanceOf } from './records/identity.ts';
import { removeRecord } from './records/store.ts';
import { parseSize, type Size } from './size.ts';

const MAX_ID = 2 ** 31 - 1;

/**
 * All ublk devices of this machine visible to this user, of every server.
 *
 * @example
 * for (const { path, state } of await listDevices()) console.log(path, state);
 *
 * @throws {UblkError} `ERR_UBLK_NO_DRIVER`, `ERR_UBLK_PERMISSION`, `ERR_UBLK_NO_IO_URING`.
 */
export async function listDevices(): Promise<DeviceInfo[]> {
  return unwrap(await native().listDevices());
}

/**
 * The kernel's description of a device.
 *
 * @throws {UblkError} `ERR_UBLK_NO_DEVICE`, and the errors of {@link listDevices}.
 */
export async function getDeviceInfo(id: number): Promise<DeviceInfo> {
  return unwrap(await native().deviceInfo(checkId(id)));
}

/** Options of {@link stopDevice}. */
export interface StopOptions {
  /**
   * Stop a device in use: its users see errors afterwards.
   * @default false
   */
  readonly force?: boolean | undefined;
}

/**
 * Stops a device of any server: requests in flight end, then the kernel removes `/dev/ublkbN`. A
 * server of this package then removes the device; {@link deleteDevice} removes a device without a
 * server. Without `force` only a device without users is stopped; before Linux 7.0 the search for
 * users covers the parts of `/proc` and `/sys` readable by this user ({@link StopCheck}).
 *
 * @throws {UblkError} `ERR_UBLK_BUSY` for a device in use, with the users in the message;
 * `ERR_UBLK_NO_DEVICE`, `ERR_UBLK_TIMEOUT`, and the errors of {@link listDevices}.
 */
export async function stopDevice(id: number, options: StopOptions = {}): Promise<StopCheck> {
  checkKeys(options, 'the options of stopDevice()', ['force']);
  const force = checkBoolean(options.force ?? false, 'force');
  return unwrap(await native().stopDevice(checkId(id), force));
}

/**
 * Takes a device away from its server (Linux 6.16): the server ends the requests in flight and
 * leaves. Later requests wait for {@link recoverDevice} or fail, according to the device's `recovery`.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for a device without `recovery`;
 * `ERR_UBLK_UNSUPPORTED` before Linux 6.16, for a device with exchange `batch` (the kernel would fail
 * the clients' requests: end the server's process instead), and while the kernel does not count
 * requests (`queue/iostats` is 0); `ERR_UBLK_NO_DEVICE`; `ERR_UBLK_TIMEOUT` when the server does not
 * leave.
 */
export async function quiesceDevice(id: number): Promise<void> {
  unwrap(await native().quiesceDevice(checkId(id)));
}

/** Options of {@link resizeDevice}. */
export interface ResizeOptions {
  /**
   * Let the device grow without a check of the backing store's size.
   * @default false
   */
  readonly force?: boolean | undefined;
}

/**
 * Changes the size of a served device (Linux 6.16). The backing store must hold the new size, and
 * only the server can check: call {@link Device.resize} in the server, or grow the backing store
 * first and use `force`.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`, also to grow without `force`;
 * `ERR_UBLK_UNSUPPORTED`, `ERR_UBLK_NO_DEVICE`, `ERR_UBLK_CLOSED` for a device that is not live.
 */
export async function resizeDevice(
  id: number,
  size: Size,
  options: ResizeOptions = {},
): Promise<DeviceInfo> {
  checkKeys(options, 'the options of resizeDevice()', ['force']);
  const force = checkBoolean(options.force ?? false, 'force');
  return unwrap(await native().resizeDevice(checkId(id), parseSize(size, 'size'), force));
}

/**
 * Moves all threads of a device to the given CPUs, in any server of this package: the threads of the
 * queues, of `threads`, both threads of `ringsApart`. Resolves to the number of threads. The reactors
 * of a pool serve other devices too and do not move.
 *
 * @example
 * await setDeviceAffinity(0, [2, 3]);
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`; `ERR_UBLK_UNSUPPORTED` for a device of
 * a {@link createReactorPool | pool}; `ERR_UBLK_NO_DEVICE`, `ERR_UBLK_PERMISSION`, `ERR_UBLK_CLOSED`.
 */
export async function setDeviceAffinity(id: number, cpus: readonly number[]): Promise<number> {
  return unwrap(await native().setDeviceAffinity(checkId(id), checkCpus(cpus, 'cpus')));
}

/** Options of {@link deleteDevice}. */
export interface DeleteOptions {
  /**
   * Delete a device in use: its users see errors afterwards.
   * @default false
   */
  readonly force?: boolean | undefined;
}

/**
 * Stops and removes a device, with or without a server. Without `force` only a device without users
 * is deleted; {@link stopDevice} describes the search for users.
 *
 * @throws {UblkError} `ERR_UBLK_BUSY` for a device in use, with the users in the message; with `force`,
 * when a client still has the device open 30 s later: the device is removed when the client closes.
 * `ERR_UBLK_NO_DEVICE`, `ERR_UBLK_TIMEOUT`, and the errors of {@link listDevices}.
 */
export async function deleteDevice(id: number, options: DeleteOptions = {}): Promise<void> {
  checkKeys(options, 'the options of deleteDevice()', ['force']);
  const force = checkBoolean(options.force ?? false, 'force');
  const instance = instanceOf(checkId(id));
  unwrap(await native().deleteDevice(id, force));
  if (instance !== undefined) removeRecord(id, instance);
}

/**
 * The users of a device and of its partitions: mounts in all namespaces, stacked devices, swap space,
 * processes with open file descriptors. Opens nothing and waits for no request.
 *
 * @example
 * for (const { kind, name, pid } of (await deviceUsers(0)).found) console.log(kind, name, pid);
 *
 * @throws {UblkError} `ERR_UBLK_NO_DEVICE`, and the errors of {@link listDevices}.
 */
export async function deviceUsers(id: number): Promise<DeviceUsers> {
  const { found, complete, text } = unwrap(await native().deviceUsers(checkId(id)));
  const nobody = complete ? 'nobody' : 'nobody that this user may see';
  return { found, complete, text: found.length === 0 ? nobody : text };
}

/**
 * The features of the ublk driver known to this package, and whether this kernel has each.
 *
 * @example
 * const zeroCopy = (await features()).some((one) => one.name === 'AUTO_BUF_REG' && one.supported);
 *
 * @throws {UblkError} The errors of {@link listDevices}; `ERR_UBLK_UNSUPPORTED` before Linux 6.5,
 * where the driver cannot report features.
 */
export async function features(): Promise<Feature[]> {
  return unwrap(await native().features());
}

function checkId(id: number): number {
  return checkInteger(id, 'id', 0, MAX_ID);
}
