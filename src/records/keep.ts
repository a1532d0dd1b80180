import type { DeviceOptions } from '../options.ts';
import { debug } from '../debug.ts';
import type { Device } from '../device.ts';
import { messageOf, UblkError, UblkErrorCode } from '../errors.ts';
import { bootId, instanceOf } from './identity.ts';
import { recordOptions, recordTarget } from './plain.ts';
import type { DeviceRecord } from './record.ts';
import { removeRecord, writeRecord } from './store.ts';

/** The part of a record that the device itself does not know. */
export type Recordable = Partial<DeviceOptions> & Pick<DeviceOptions, 'target'>;

/**
 * Writes the record of a device with `recovery`, and removes the record when the device is gone. A
 * record that cannot be written is a warning: the device is served all the same, and the next server
 * needs the target.
 */
export function keepRecord(device: Device, options: Recordable): void {
  const { id } = device;
  const instance = instanceOf(id);
  // A device of tests is no device of this machine.
  if (instance === undefined) return;
  try {
    writeRecord(recordFor(device, instance, options));
  } catch (error) {
    device.warn(unrecorded(device, error));
  }
  const remove = (): void => {
    try {
      removeRecord(id, instance);
    } catch (error) {
      debug('%s: its record stays: %O', device.path, error);
    }
  };
  device.closed.then(
    (reason) => {
      if (reason !== 'quiesced') remove();
    },
    () => {
      // A device that failed may be waiting for its next server.
      if (instanceOf(id) !== instance) remove();
    },
  );
}

function recordFor(device: Device, instance: string, options: Recordable): DeviceRecord {
  const { id, queues, depth, maxIoBytes, size, logicalBlockSize, readOnly } = device;
  return {
    boot: bootId(),
    instance,
    id,
    name: options.name,
    pid: process.pid,
    since: new Date().toISOString(),
    target: recordTarget(options.target),
    options: recordOptions(options),
    told: { queues, depth, maxIoBytes, size, logicalBlockSize, readOnly },
  };
}

function unrecorded({ id, path }: Device, cause: unknown): UblkError {
  const code = UblkError.is(cause) ? cause.code : UblkErrorCode.Kernel;
  const hint = UblkError.is(cause) ? cause.hint : undefined;
  return new UblkError(
    code,
    `cannot write the record of ${path}, so that ublk recover ${id} needs its target: ` +
      messageOf(cause),
    { cause, hint },
  );
}
