import { checkBoolean, checkKeys, checkPath } from './check.ts';
import { unwrap } from './errors.ts';
import type { NativeDevice } from './native.ts';
import { once } from './once.ts';

/** Options of {@link Device.share}. */
export interface ShareOptions {
  /**
   * Whether the server must not change the memory: only writes use the memory, and a memfd may be
   * sealed against writing.
   * @default false
   */
  readonly readOnly?: boolean | undefined;
}

/** Memory shared by clients with a device, until the memory or the device is closed. */
export class SharedMemory {
  readonly #unshare: () => Promise<void>;
  /** The path of the shared file. */
  readonly path: string;
  /** The kernel's index of the memory. */
  readonly index: number;

  /** @internal */
  constructor(device: NativeDevice, path: string, index: number) {
    this.#unshare = once(async () => unwrap(await device.unshare(index)));
    this.path = path;
    this.index = index;
  }

  /**
   * Unregisters the memory: later requests on the memory are served like all others. Waits for the
   * requests in flight. Later calls return the same promise, and try again after an error.
   *
   * @throws {UblkError} `ERR_UBLK_NO_DEVICE` after the end of the device.
   */
  close(): Promise<void> {
    return this.#unshare();
  }

  /** {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** @throws {UblkError} As {@link Device.share}. */
export async function shareMemory(
  native: NativeDevice,
  path: string | URL,
  options: ShareOptions,
): Promise<SharedMemory> {
  const file = checkPath(path, 'path');
  checkKeys(options, 'the options of share()', ['readOnly']);
  const { readOnly = false } = options;
  checkBoolean(readOnly, 'readOnly');
  return new SharedMemory(native, file, unwrap(await native.share(file, readOnly)));
}
