import { checkInteger } from './check.ts';
import { unwrap } from './errors.ts';
import type { DeviceInfo, Feature } from './info.ts';
import { native } from './native.ts';

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

/**
 * Stops a device, whoever serves it: `/dev/ublkbN` goes away, the requests under way end first.
 * A server of this package then removes the device too; of a server that is gone,
 * {@link deleteDevice} removes what it left.
 *
 * @throws {UblkError} `ERR_UBLK_NO_DEVICE`, `ERR_UBLK_TIMEOUT`, and what {@link listDevices} throws.
 */
export async function stopDevice(id: number): Promise<void> {
  unwrap(await native().stopDevice(checkId(id)));
}

/**
 * Stops a device and removes it, with or without a server.
 *
 * @throws {UblkError} `ERR_UBLK_NO_DEVICE`, `ERR_UBLK_TIMEOUT`, and what {@link listDevices} throws.
 */
export async function deleteDevice(id: number): Promise<void> {
  unwrap(await native().deleteDevice(checkId(id)));
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
