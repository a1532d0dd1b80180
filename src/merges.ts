import { checkBoolean, checkInteger, checkKeys } from './check.ts';
import { toUblkError, UblkError, UblkErrorCode, unwrap, wrong } from './errors.ts';
import type { NativeDevice } from './native.ts';
import { checkTaskOptions, runTask } from './overlay-task.ts';
import type { FlattenOptions, OverlayMerged } from './overlay-merges.ts';
import { parseSize, type Size } from './size.ts';

/** Options of {@link Device.flatten}. */
export interface DeviceFlattenOptions extends FlattenOptions {
  /**
   * The most bytes to copy per second, so that clients of the disk do not feel the copying.
   * @default 64 MiB
   */
  readonly bytesPerSecond?: Size | undefined;
}

/** When a device merges the frozen layers below its disk by itself. */
export interface MergeOptions extends Pick<DeviceFlattenOptions, 'bytesPerSecond' | 'prune'> {
  /**
   * The most frozen layers, 1 to 254.
   * @default 32
   */
  readonly depth?: number | undefined;
  /**
   * The largest share of the layers' space that a merge may give back, 0 to 1: for example the places of
   * blocks that a higher layer has written again.
   * @default 0.5
   */
  readonly garbage?: number | undefined;
}

interface Policy {
  readonly depth: number;
  readonly garbage: number;
  readonly how: DeviceFlattenOptions;
}

const DEFAULT_PACE = 64 << 20;
/** The service has ended, or a caller of {@link Device.flatten} merges. */
const EXPECTED: readonly UblkErrorCode[] = [UblkErrorCode.Closed, UblkErrorCode.Busy];
const KEYS = ['depth', 'garbage', 'bytesPerSecond', 'prune'];

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` */
export function checkMerge(options: MergeOptions): Policy {
  checkKeys(options, 'merge', KEYS, 'merge');
  const { depth = 32, garbage = 0.5, bytesPerSecond, prune } = options;
  if (typeof garbage !== 'number' || !(garbage >= 0 && garbage <= 1)) {
    throw wrong('merge.garbage', 'must be a number between 0 and 1');
  }
  if (bytesPerSecond !== undefined) parseSize(bytesPerSecond, 'merge.bytesPerSecond');
  if (prune !== undefined) checkBoolean(prune, 'merge.prune');
  return {
    depth: checkInteger(depth, 'merge.depth', 1, 254),
    garbage,
    how: { bytesPerSecond, prune },
  };
}

/** @internal The merges of a device's frozen layers. */
export class Merges {
  readonly #native: NativeDevice;
  readonly #warn: (error: UblkError) => void;
  readonly #running = new Map<AbortController, Promise<unknown>>();
  #policy: Policy | undefined;
  #looking = false;

  constructor(native: NativeDevice, warn: (error: UblkError) => void) {
    this.#native = native;
    this.#warn = warn;
  }

  /** Merges until the signal, or {@link end}, ends the merge. */
  async flatten(options: DeviceFlattenOptions): Promise<OverlayMerged> {
    checkTaskOptions(options, 'flatten', ['prune', 'bytesPerSecond']);
    const prune = checkBoolean(options.prune ?? false, 'prune');
    const pace = parseSize(options.bytesPerSecond ?? DEFAULT_PACE, 'bytesPerSecond');
    const ending = new AbortController();
    const signals = [ending.signal, ...(options.signal ? [options.signal] : [])];
    const how = { ...options, signal: AbortSignal.any(signals) };
    const merged = runTask(how, (task) => this.#native.flatten(prune, pace, task));
    this.#running.set(ending, merged);
    try {
      return await merged;
    } finally {
      this.#running.delete(ending);
    }
  }

  /** Keeps the disk within limits from now on. */
  keep(options: MergeOptions): void {
    this.#policy = checkMerge(options);
    this.look();
  }

  /** Merges if the layers have passed the limits; a failure is a warning. */
  look(): void {
    if (this.#policy === undefined || this.#looking) return;
    this.#looking = true;
    void this.#mergeWhile(this.#policy)
      .catch((thrown: unknown) => {
        const error = toUblkError(thrown);
        if (!EXPECTED.includes(error.code)) this.#warn(asWarning(error));
      })
      .finally(() => (this.#looking = false));
  }

  async #mergeWhile({ depth, garbage, how }: Policy): Promise<void> {
    for (;;) {
      const frozen = unwrap(await this.#native.frozen());
      if (frozen === null || frozen.layers < 2) return;
      const { layers, allocated, stored } = frozen;
      if (layers <= depth && allocated - stored <= garbage * allocated) return;
      const { kept, removed } = await this.flatten(how);
      // The rest is what other layers stand on.
      if (kept.length + removed.length === 0) return;
    }
  }

  /** Ends all merges: they leave the disk as it was. */
  async end(): Promise<void> {
    const merges = [...this.#running];
    const message = 'the merge of layers ended with the service of the device';
    for (const [ending] of merges) ending.abort(new UblkError(UblkErrorCode.Closed, message));
    await Promise.allSettled(merges.map(([, merged]) => merged));
  }
}

function asWarning(cause: UblkError): UblkError {
  const { code, message, hint } = cause;
  const said = `the layers of the device could not be merged: ${message}`;
  return new UblkError(code, said, { hint, cause });
}
