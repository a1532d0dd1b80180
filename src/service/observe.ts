import { listDevices } from '../devices.ts';
import { UblkError } from '../errors.ts';
import type { DeviceInfo } from '../info.ts';
import { readNote } from '../notes.ts';
import { hasNoServer } from '../orphans.ts';
import type { DeviceRecord } from '../records/record.ts';
import { recordOf } from '../records/store.ts';

/** A device of this machine, as input of a plan. */
export interface SeenDevice {
  readonly info: DeviceInfo;
  /** The name from the server. */
  readonly name?: string | undefined;
  /** The target of the device, in words. */
  readonly serves?: string | undefined;
  /** Whether a process serves the device. */
  readonly isServed: boolean;
  readonly record?: DeviceRecord | undefined;
}

/** All devices of this machine. */
export async function observe(): Promise<SeenDevice[]> {
  return (await listDevices()).map((info) => {
    const note = readNote(info);
    const record = usableRecord(info.id);
    const name = note?.name ?? record?.name;
    return { info, name, serves: note?.serves, isServed: !hasNoServer(info), record };
  });
}

/** The record of a device, if usable: the target of the configuration wins over the record. */
function usableRecord(id: number): DeviceRecord | undefined {
  try {
    return recordOf(id);
  } catch (error) {
    if (!UblkError.is(error)) throw error;
    return undefined;
  }
}
