import type { Device } from '../device.ts';
import { UblkError } from '../errors.ts';

/** Collects warnings until the device exists, then passes warnings to the device. */
export class Warnings {
  #device: Device | undefined;
  readonly #early: UblkError[] = [];
  #isLost = false;

  /** Reports a warning. */
  readonly tell: (warning: UblkError) => void = (warning) => {
    // In a microtask, since a listener may throw and must not interrupt the service of requests.
    queueMicrotask(() => {
      if (this.#device) this.#device.warn(warning);
      else this.#early.push(warning);
    });
  };

  /** The callback {@link tell} for a {@link WorkerPool}. */
  readonly warn: (warning: UblkError) => void = this.tell;

  /** Reports the loss of the answering thread: the device is left to the next server, or closed. */
  readonly lost: (error: UblkError) => void = (error) => {
    this.#isLost = true;
    this.tell(error);
    this.#close();
  };

  /** Passes all earlier and later warnings to `device`. */
  listen(device: Device): void {
    this.#device = device;
    for (const warning of this.#early.splice(0)) device.warn(warning);
    if (this.#isLost) this.#close();
  }

  #close(): void {
    // A device that does not end stays served, and each request times out.
    this.#device?.part().catch((error: unknown) => {
      if (UblkError.is(error)) this.tell(error);
    });
  }
}
