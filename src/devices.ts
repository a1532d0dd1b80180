import { checkBoolean, checkCpus, checkInteger, checkKeys } from './check.ts';
import { unwrap } from './errors.ts';
import type { DeviceInfo, DeviceUsers, Feature, StopCheck } from './info.ts';
import { native } from './native.ts';
import { parseSize, type Size } from './size.ts';

const MAX_ID = 2 ** 31 - 1;

/**
 * All ublk devices of this machine that this user may see, whoever serves them.
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
 * What the kernel says about one device.
 *
 * @throws {UblkError} `ERR_UBLK_NO_DEVICE`, and what {@link listDevices} throws.
 */
export async function getDeviceInfo(id: number): Promise<DeviceInfo> {
  return unwrap(await native().deviceInfo(checkId(id)));
}

/** How {@link stopDevice} stops. */
export interface StopOptions {
  /**
   * Stop it although somebody uses it: they see errors from then on.
   * @default false
   */
  readonly force?: boolean | undefined;
}

/**
 * Stops a device, whoever serves it: `/dev/ublkbN` goes away, the requests under way end first.
 * A server of this package then removes the device too; of a server that is gone,
 * {@link deleteDevice} removes what it left. Without `force` only a device that nobody has open is
 * stopped; before Linux 7.0, as far as `/proc` and `/sys` tell this user ({@link StopCheck}).
 *
 * @throws {UblkError} `ERR_UBLK_BUSY` while somebody uses it, with the users in the message;
 * `ERR_UBLK_NO_DEVICE`, `ERR_UBLK_TIMEOUT`, and what {@link listDevices} throws.
 */
export async function stopDevice(id: number, options: StopOptions = {}): Promise<StopCheck> {
  checkKeys(options, 'the options of stopDevice()', ['force']);
  const force = checkBoolean(options.force ?? false, 'force');
  return unwrap(await native().stopDevice(checkId(id), force));
}

/**
 * Takes a device away from its server, whoever that is: the server ends what it has begun and
 * leaves, and requests wait for {@link recoverDevice}, or fail, as the device's `recovery` says
 * (Linux 6.16).
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for a device without `recovery`;
 * `ERR_UBLK_UNSUPPORTED` before Linux 6.16, for a device with exchange `batch` (the kernel would fail
 * its clients' requests: end its server's process instead), and while the kernel does not count
 * requests (`queue/iostats` is 0); `ERR_UBLK_NO_DEVICE`; `ERR_UBLK_TIMEOUT` when its server does not
 * leave.
 */
export async function quiesceDevice(id: number): Promise<void> {
  unwrap(await native().quiesceDevice(checkId(id)));
}

/** How {@link resizeDevice} resizes. */
export interface ResizeOptions {
  /**
   * Let the device grow although nobody looks whether what lies behind it holds as much.
   * @default false
   */
  readonly force?: boolean | undefined;
}

/**
 * Changes the size of a device that is being served, whoever serves it (Linux 6.16). What lies
 * behind it must hold as much, which its own server alone can see: let that call
 * {@link Device.resize}, or grow what lies behind first and use `force`.
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
 * Moves all threads that serve a device to these CPUs, whichever process of this package they belong
 * to: its queues', its `threads`, both of each with `ringsApart`. Resolves to how many there are. The
 * reactors of a pool serve other devices too, and stay where they are.
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

/** How {@link deleteDevice} deletes. */
export interface DeleteOptions {
  /**
   * Delete the device although somebody uses it: its users see errors from then on.
   * @default false
   */
  readonly force?: boolean | undefined;
}

/**
 * Stops a device and removes it, with or without a server. Without `force` only a device that
 * nobody uses is deleted, as {@link stopDevice} looks.
 *
 * @throws {UblkError} `ERR_UBLK_BUSY` while somebody uses the device, with the users in the message;
 * with `force`, when somebody still has it open 30 s later: then it goes when they close it.
 * `ERR_UBLK_NO_DEVICE`, `ERR_UBLK_TIMEOUT`, and what {@link listDevices} throws.
 */
export async function deleteDevice(id: number, options: DeleteOptions = {}): Promise<void> {
  checkKeys(options, 'the options of deleteDevice()', ['force']);
  const force = checkBoolean(options.force ?? false, 'force');
  unwrap(await native().deleteDevice(checkId(id), force));
}

/**
 * The users of a device: mounts in all namespaces, devices made of it, swap space, processes that
 * have it open; those of its partitions too. Opens nothing and waits for no request.
 *
 * @example
 * for (const { kind, name, pid } of (await deviceUsers(0)).found) console.log(kind, name, pid);
 *
 * @throws {UblkError} `ERR_UBLK_NO_DEVICE`, and what {@link listDevices} throws.
 */
export async function deviceUsers(id: number): Promise<DeviceUsers> {
  const { found, complete, text } = unwrap(await native().deviceUsers(checkId(id)));
  const nobody = complete ? 'nobody' : 'nobody that this user may see';
  return { found, complete, text: found.length === 0 ? nobody : text };
}

/**
 * The features of the ublk driver that this package knows, and whether this kernel has them.
 *
 * @example
 * const zeroCopy = (await features()).some((one) => one.name === 'AUTO_BUF_REG' && one.supported);
 *
 * @throws {UblkError} What {@link listDevices} throws; `ERR_UBLK_UNSUPPORTED` before Linux 6.5,
 * which cannot be asked.
 */
export async function features(): Promise<Feature[]> {
  return unwrap(await native().features());
}

function checkId(id: number): number {
  return checkInteger(id, 'id', 0, MAX_ID);
}
