import { readFileSync } from 'node:fs';

import { checkKeys, checkBoolean } from './check.ts';
import { deleteDevice, getDeviceInfo, listDevices } from './devices.ts';
import { UblkError, UblkErrorCode } from './errors.ts';
import type { DeviceInfo } from './info.ts';
import { readNote } from './notes.ts';
import { instanceOf } from './records/identity.ts';
import type { DeviceRecord } from './records/record.ts';
import { listRecords, recordOf, removeRecord, type FoundRecord } from './records/store.ts';

/** A record of a device that is gone, or a record that cannot be used. */
export interface OrphanRecord {
  /** The number in the name of the file. */
  readonly id: number;
  readonly path: string;
  /** The name that the device had. */
  readonly name?: string;
  /** Why the record cannot be used. ublk never removes such a record. */
  readonly problem?: UblkError;
}

/** Devices and records that dead servers have left: see {@link listOrphans}. */
export interface Orphans {
  /** Devices without a server. */
  readonly devices: readonly DeviceInfo[];
  /** Records without a device, and records that cannot be used. */
  readonly records: readonly OrphanRecord[];
}

/**
 * Devices without a server, and records of devices that are gone. A device with `recovery` waits for
 * `recoverDevice`; {@link prune} removes the rest.
 *
 * @throws {UblkError} What {@link listDevices} throws.
 */
export async function listOrphans(): Promise<Orphans> {
  const devices = (await listDevices()).filter(hasNoServer);
  return { devices, records: listRecords().flatMap((found) => orphan(found) ?? []) };
}

/** The devices with `recovery` that wait for a server. */
export async function waitingDevices(): Promise<DeviceInfo[]> {
  const { devices } = await listOrphans();
  return devices.filter(isWaiting);
}

/** Whether a device has `recovery` and can have it: a device that was stopped, or never started, cannot. */
function isWaiting({ recovery, state }: DeviceInfo): boolean {
  return recovery !== undefined && state !== 'dead';
}

/** Options of {@link prune}. */
export interface PruneOptions {
  /**
   * Report the removals, and remove nothing.
   * @default false
   */
  readonly dryRun?: boolean | undefined;
}

/** The result of {@link prune}. */
export interface Pruned {
  /** The numbers of the removed devices. */
  readonly devices: readonly number[];
  /** The paths of the removed records. */
  readonly records: readonly string[];
  /** Orphans that stay, by path, with the reason. */
  readonly kept: readonly { readonly path: string; readonly why: string }[];
}

/**
 * Removes orphans that no server can use again: dead devices without `recovery` whose server was of this
 * package, unless a client uses the device; and records of devices that are gone. Devices with
 * `recovery` stay, and so do records that this version cannot read.
 *
 * @throws {UblkError} What {@link listDevices} throws.
 */
export async function prune(options: PruneOptions = {}): Promise<Pruned> {
  checkKeys(options, 'the options of prune()', ['dryRun']);
  const dryRun = checkBoolean(options.dryRun ?? false, 'dryRun');
  const kept: { path: string; why: string }[] = [];
  const devices: number[] = [];
  for (const device of (await listOrphans()).devices) {
    const why = await whyKept(device, dryRun);
    if (why === undefined) devices.push(device.id);
    else kept.push({ path: device.path, why });
  }
  const records: string[] = [];
  for (const { path, problem, record } of listRecords()) {
    if (problem) kept.push({ path, why: problem.message });
    if (record === undefined || isOfDevice(record)) continue;
    if (!dryRun) removeRecord(record.id, record.instance);
    records.push(path);
  }
  return { devices, records, kept };
}

/** Removes an orphan, or says why the orphan stays. */
async function whyKept(device: DeviceInfo, dryRun: boolean): Promise<string | undefined> {
  const { id } = device;
  if (isWaiting(device)) return `waits for its next server: ublk recover ${id}`;
  // A device that is being created has no server either.
  const pid = (readNote(device) ?? readableRecord(id))?.pid;
  if (pid === undefined) {
    return `is dead, and its server is unknown: ublk delete ${id} removes the device`;
  }
  if (device.recovery !== undefined && isRunning(pid)) return `is being created by process ${pid}`;
  if (dryRun) return undefined;
  try {
    await deleteOrphan(id);
    return undefined;
  } catch (error) {
    if (!UblkError.is(error)) throw error;
    return error.code === UblkErrorCode.NoDevice ? undefined : error.message;
  }
}

/**
 * @internal Deletes a device without a server. Since the device was seen, the number may have become
 * another device's.
 *
 * @throws {UblkError} `ERR_UBLK_BUSY` for a device with a server; what {@link deleteDevice} throws.
 */
export async function deleteOrphan(id: number): Promise<void> {
  const info = await getDeviceInfo(id);
  if (!hasNoServer(info)) {
    const message = `ublk device ${id} is now served by process ${info.serverPid}`;
    throw new UblkError(UblkErrorCode.Busy, message, { hint: 'look again: ublk list' });
  }
  await deleteDevice(id);
}

/** The record of a device as it is now, if the record can be used. */
function readableRecord(id: number): DeviceRecord | undefined {
  try {
    return recordOf(id);
  } catch (error) {
    if (UblkError.is(error)) return undefined;
    throw error;
  }
}

function orphan({ id, path, record, problem }: FoundRecord): OrphanRecord | undefined {
  if (problem) return { id, path, problem };
  if (record === undefined || isOfDevice(record)) return undefined;
  return { id, path, ...(record.name !== undefined && { name: record.name }) };
}

function isOfDevice({ id, instance }: { id: number; instance: string }): boolean {
  return instanceOf(id) === instance;
}

/**
 * Whether the server of a device is gone. The kernel may not have noticed the end of a process yet; a
 * recovery waits for the kernel. A live device without recovery counts as served: its server may be in a
 * container, and not visible here.
 */
export function hasNoServer({ serverPid, state, recovery }: DeviceInfo): boolean {
  if (serverPid === undefined) return state !== 'live';
  return (state !== 'live' || recovery !== undefined) && !isRunning(serverPid);
}

function isRunning(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2));
  } catch {
    return false;
  }
}
