import { debug } from './debug.ts';
import type { EndReason } from './device-events.ts';
import { toError, type UblkError, unwrap } from './errors.ts';
import type { DeviceInfo } from './info.ts';
import type { NativeDevice, NativeEnd } from './native.ts';

// The longest interval that timers take: one wake-up in 24 days.
const LONGEST_MS = 2 ** 31 - 1;

/** The ways to end a device. */
export type Way = 'close' | 'quiesce' | 'part' | 'release';

/** What a {@link Lifetime} asks of the device. */
export interface Living {
  readonly path: string;
  /** Begins to look whether the end takes long, until disposed of; nothing where nobody knows the users. */
  watchEnd(): Disposable | undefined;
  /** Ends what has the target open, before the service ends. */
  leaveTarget(): Promise<void>;
  /**
   * Hears of the end once, and of the error of a failed device; a pending call may report the error. Returns
   * whether the error is reported.
   */
  over(end: NativeEnd, error: UblkError | undefined, isReported: boolean): boolean;
}

/**
 * @internal The lifetime of a device: keeps the process alive until the end, asks the addon for the end, and
 * tells everybody who waits.
 */
export class Lifetime {
  readonly #device: Living;
  readonly #native: Pick<NativeDevice, Way>;
  /** Settles at the end of the device: {@link Device.closed}. */
  readonly closed: Promise<EndReason>;
  /** Resolves at the end of the device, successful or not; never rejects. */
  readonly over: Promise<NativeEnd>;
  // Keeps the event loop alive: all handles of the addon are weak.
  readonly #alive = setInterval(() => {}, LONGEST_MS);
  /** Whether the device keeps the program alive. */
  #kept = true;
  /** Pending calls that wait for the end and report the device's failure. */
  #waiting = 0;
  #ended = false;
  /** Calls pending or done; failed calls are removed, so that the next call tries again. */
  readonly #asked = new Map<Way, Promise<void>>();

  constructor(native: Pick<NativeDevice, Way>, ended: Promise<NativeEnd>, device: Living) {
    this.#device = device;
    this.#native = native;
    let settle!: { resolve: (reason: EndReason) => void; reject: (error: UblkError) => void };
    this.closed = new Promise((resolve, reject) => (settle = { resolve, reject }));
    this.over = ended.then((end) => {
      const error = this.#end(end);
      if (error) settle.reject(error);
      else settle.resolve(end.reason === 'failed' ? 'stopped' : end.reason);
      return end;
    });
  }

  get hasEnded(): boolean {
    return this.#ended;
  }

  /** Lets the process end with an open device. */
  unref(): void {
    this.#kept = false;
    if (this.#waiting === 0) this.#alive.unref();
  }

  /** Reverts {@link unref}. */
  ref(): void {
    this.#kept = true;
    if (!this.#ended) this.#alive.ref();
  }

  /** Whether a call for this way to end is pending or done. */
  hasAsked(way: Way): boolean {
    return this.#asked.has(way);
  }

  /** Ends the device in the given way; repeated calls share a promise. */
  ask(way: Way): Promise<void> {
    const asked = this.#asked.get(way) ?? this.#leave(way);
    this.#asked.set(way, asked);
    return asked;
  }

  async #leave(way: Way): Promise<void> {
    if (this.#ended) return;
    debug('%s: %s', this.#device.path, way);
    this.#waiting += 1;
    this.#alive.ref();
    const slow = this.#device.watchEnd();
    try {
      await this.#device.leaveTarget();
      unwrap(await this.#native[way]());
      await this.over;
    } catch (error) {
      // The addon may throw synchronously, before `#asked` has the promise.
      await undefined;
      this.#asked.delete(way);
      debug('%s: %s failed: %O', this.#device.path, way, error);
      throw error;
    } finally {
      slow?.[Symbol.dispose]();
      this.#waiting -= 1;
      if (this.#waiting === 0 && !this.#kept) this.#alive.unref();
    }
  }

  /** Records the end; returns the error of a failed device. */
  #end(end: NativeEnd): UblkError | undefined {
    const error = end.failure && toError(end.failure);
    debug('%s: %s', this.#device.path, end.reason, error ?? '');
    this.#ended = true;
    clearInterval(this.#alive);
    if (this.#device.over(end, error, this.#waiting > 0)) this.closed.catch(() => {});
    return error;
  }
}

/** The state of a device after this end of the service. */
export function stateAfter(
  { reason }: NativeEnd,
  recovery: DeviceInfo['recovery'],
): DeviceInfo['state'] {
  if (reason !== 'quiesced') return 'dead';
  return recovery === 'fail' ? 'fail-io' : 'quiesced';
}
