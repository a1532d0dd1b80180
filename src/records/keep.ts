import type { DeviceOptions } from '../options.ts';
import { debug } from '../debug.ts';
import type { Device } from '../device.ts';
import { messageOf, UblkError, UblkErrorCode } from '../errors.ts';
import { bootId, instanceOf } from './identity.ts';
import { recordOptions, recordTarget } from './plain.ts';
import type { DeviceRecord, Told } from './record.ts';
import { removeRecord, writeRecord } from './store.ts';

/** The part of a record that the device itself does not know. */
export type Recordable = Partial<DeviceOptions> & Pick<DeviceOptions, 'target'>;

/**
 * The record of one device with `recovery`, from before the start of the device to the end. Where the record
 * cannot be written, the device emits a warning and is served; the next server then needs the target.
 */
export class RecordKeeper {
  readonly #options: Recordable;
  /** The device of the record, once written. */
  #device: { readonly id: number; readonly instance: string } | undefined;
  #problem: unknown;

  constructor(options: Recordable) {
    this.#options = options;
  }

  /** Writes the record, before the device starts: no client ever uses a device without a record. */
  readonly write = (device: Told & { readonly id: number }): void => {
    const instance = instanceOf(device.id);
    // A device of tests is no device of this machine.
    if (instance === undefined) return;
    this.#device = { id: device.id, instance };
    try {
      writeRecord(recordFor(device, instance, this.#options));
    } catch (error) {
      this.#problem = error;
    }
  };

  /** Removes the record of a device that did not start. */
  discard(): void {
    if (!this.#device) return;
    const { id, instance } = this.#device;
    try {
      removeRecord(id, instance);
    } catch (error) {
      debug('ublk device %d: its record stays: %O', id, error);
    }
  }

  /** Removes the record when the device is gone; tells the device's listeners of a missing record. */
  attach(device: Device): void {
    if (this.#problem !== undefined) device.warn(unrecorded(device, this.#problem));
    device.closed.then(
      (reason) => {
        if (reason !== 'quiesced') this.discard();
      },
      () => {
        // A device that failed may be waiting for its next server.
        if (instanceOf(device.id) !== this.#device?.instance) this.discard();
      },
    );
  }
}

function recordFor(
  device: Told & { readonly id: number },
  instance: string,
  options: Recordable,
): DeviceRecord {
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
