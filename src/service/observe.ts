import { listDevices } from '../devices.ts';
import { UblkError } from '../errors.ts';
import type { DeviceInfo } from '../info.ts';
import { readNote } from '../notes.ts';
import { hasNoServer } from '../orphans.ts';
import type { DeviceRecord } from '../records/record.ts';
import { recordOf } from '../records/store.ts';

/** A device of this machine, as a plan sees it. */
export interface SeenDevice {
  readonly info: DeviceInfo;
  /** The name that its server gave it. */
  readonly name?: string | undefined;
  /** What lies behind the device, in words. */
  readonly serves?: string | undefined;
  /** Whether a process serves it. */
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

/** The target of a configuration wins, so that a record that cannot be read is none. */
function usableRecord(id: number): DeviceRecord | undefined {
  try {
    return recordOf(id);
  } catch (error) {
    if (!UblkError.is(error)) throw error;
    return undefined;
  }
}
