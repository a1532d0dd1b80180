import { readFileSync } from 'node:fs';

import { deviceUsers } from '../devices.ts';
import type { Buffering, DeviceInfo, DeviceUsers, ExchangeMode } from '../info.ts';
import { readNote } from '../notes.ts';

/** A device as `ublk list` and `ublk info` show devices; unknown values are absent. */
export interface DescribedDevice extends DeviceInfo {
  /** The name that the device was given. */
  readonly name?: string;
  /** The target of the device, in the words of the server's note. */
  readonly serves?: string;
  /** When the service of the device began, as ISO 8601. */
  readonly since?: string;
  /** The program of the server. */
  readonly serverName?: string;
  readonly buffers: Buffering['mode'];
  readonly exchange: ExchangeMode;
  readonly users?: DeviceUsers;
}

/** Adds the server's note and the users of the device to the facts of the kernel. */
export async function describe(device: DeviceInfo): Promise<DescribedDevice> {
  const note = readNote(device);
  const name = nameOf(device.serverPid);
  // The device may go meanwhile.
  const users = await deviceUsers(device.id).catch(() => undefined);
  return {
    ...device,
    ...(note && { serves: note.serves, since: note.since }),
    ...(note?.name !== undefined && { name: note.name }),
    ...(name !== undefined && { serverName: name }),
    ...modesOf(device.features),
    ...(users && { users }),
  };
}

/** The modes that follow from the features in force. */
function modesOf(features: readonly string[]): Pick<DescribedDevice, 'buffers' | 'exchange'> {
  const has = (name: string) => features.includes(name);
  const exchange = has('BATCH_IO') ? 'batch' : 'per-io';
  if (has('AUTO_BUF_REG')) return { buffers: 'auto', exchange };
  if (has('SUPPORT_ZERO_COPY')) return { buffers: 'register', exchange };
  if (has('USER_COPY')) return { buffers: 'user-copy', exchange };
  return { buffers: has('NEED_GET_DATA') ? 'get-data' : 'copy', exchange };
}

function nameOf(pid: number | undefined): string | undefined {
  if (pid === undefined) return undefined;
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trimEnd();
  } catch {
    return undefined;
  }
}
