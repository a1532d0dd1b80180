import { findInService, type DeviceOfService } from '../control/locate.ts';
import { getDeviceInfo } from '../devices.ts';
import { UblkError } from '../errors.ts';

/** A device as its service knows the device, if its server is a service that this user may speak to. */
export async function inService(id: number): Promise<DeviceOfService | undefined> {
  try {
    const { serverPid } = await getDeviceInfo(id);
    return await findInService(serverPid, id);
  } catch (error) {
    // What the kernel refuses, the command itself reports.
    if (UblkError.is(error)) return undefined;
    throw error;
  }
}
