import type { Device } from '../device.ts';
import { UblkError } from '../errors.ts';

/** Takes down what goes wrong until there is a device to tell it. */
export class Warnings {
  #device: Device | undefined;
  readonly #early: UblkError[] = [];
  #isLost = false;

  /** Tells a warning. */
  readonly tell: (warning: UblkError) => void = (warning) => {
    // Aside, since whoever listens may throw, and must not do so amidst requests.
    queueMicrotask(() => {
      if (this.#device) this.#device.warn(warning);
      else this.#early.push(warning);
    });
  };

  /** The same, for a {@link WorkerPool}. */
  readonly warn: (warning: UblkError) => void = this.tell;

  /** Tells that nobody answers requests from now on: the device is left, or closed. */
  readonly lost: (error: UblkError) => void = (error) => {
    this.#isLost = true;
    this.tell(error);
    this.#close();
  };

  /** The device that is told from now on, and of what was before. */
  listen(device: Device): void {
    this.#device = device;
    for (const warning of this.#early.splice(0)) device.warn(warning);
    if (this.#isLost) this.#close();
  }

  #close(): void {
    // A device that does not end is served on, and each request that nobody answers times out.
    this.#device?.part().catch((error: unknown) => {
      if (UblkError.is(error)) this.tell(error);
    });
  }
}
