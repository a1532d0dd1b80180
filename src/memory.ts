import { unwrap } from './errors.ts';
import type { NativeDevice } from './native.ts';
import { once } from './once.ts';

/** What {@link Device.share} can be told. */
export interface ShareOptions {
  /**
   * Whether the server must not change the memory: only writes use it then, and a memfd that is
   * sealed against writing will do.
   * @default false
   */
  readonly readOnly?: boolean | undefined;
}

/** Memory that clients share with a device, until it is closed or the device is. */
export class SharedMemory {
  readonly #unshare: () => Promise<void>;
  /** What was shared. */
  readonly path: string;
  /** The kernel's number for it. */
  readonly index: number;

  /** @internal */
  constructor(device: NativeDevice, path: string, index: number) {
    this.#unshare = once(async () => unwrap(await device.unshare(index)));
    this.path = path;
    this.index = index;
  }

  /**
   * Takes it back: later requests on it are served as all others are. Waits for those that are
   * under way; later calls give the same promise, and try again after an error.
   *
   * @throws {UblkError} `ERR_UBLK_NO_DEVICE` when the device is gone.
   */
  close(): Promise<void> {
    return this.#unshare();
  }

  /** {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
