import { checkInteger, checkKeys } from './check.ts';
import type { NativeDevice, NativeWatch } from './native.ts';
import { OPS, type RequestOp } from './request-op.ts';

/** A completed request. */
export interface Completion {
  readonly op: RequestOp;
  /** In bytes. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
  /** Whether the write had to be durable before its completion. */
  readonly fua: boolean;
  /** Zero or positive on success, else a negative errno. */
  readonly result: number;
  /** The time from the arrival at the server to the completion, in nanoseconds. */
  readonly latency: number;
  /** The time of the completion, in nanoseconds of `process.hrtime.bigint()`. */
  readonly time: number;
  /** The tag: unique within the queue while the request is in flight. */
  readonly tag: number;
  readonly queue: number;
}

/** The completions since the previous batch: queue by queue, each queue in order. */
export interface CompletionBatch {
  readonly completions: readonly Completion[];
  /** The number of completions lost since the previous batch, for lack of room. */
  readonly dropped: number;
}

/** Options of {@link Device.completions}. */
export interface CompletionsOptions {
  /**
   * Room for completions of each queue until the next batch, 1 to 1048576, rounded up to a power of
   * two; 56 bytes each.
   * @default 16384
   */
  readonly capacity?: number | undefined;
  /**
   * The wait for the next completions after an empty look, in milliseconds, 1 to 60000.
   * @default 20
   */
  readonly intervalMs?: number | undefined;
  /** Ends the iteration, which throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

const RECORD = 40;
const FUA = 1;
const LITTLE = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Watches a device from now on, until the device has `ended`. */
export function watchCompletions(
  device: NativeDevice,
  ended: Promise<unknown>,
  options: CompletionsOptions,
): AsyncIterableIterator<CompletionBatch> {
  checkKeys(options, 'completions()', ['capacity', 'intervalMs', 'signal']);
  const { capacity = 16_384, intervalMs = 20, signal } = options;
  checkInteger(capacity, 'capacity', 1, 1 << 20);
  checkInteger(intervalMs, 'intervalMs', 1, 60_000);
  signal?.throwIfAborted();
  const watch = device.watch(capacity);
  const held = new WeakRef(watch);
  // The garbage collection of an iteration that has never begun ends the watch.
  signal?.addEventListener('abort', () => held.deref()?.end(), { once: true });
  const all = batches(watch, ended, intervalMs, signal);
  return {
    next: () => all.next(),
    // A generator that has not begun runs no code, not even `finally`.
    return() {
      watch.end();
      return all.return(undefined);
    },
    throw(error) {
      watch.end();
      return all.throw(error);
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

async function* batches(
  watch: NativeWatch,
  ended: Promise<unknown>,
  intervalMs: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<CompletionBatch, undefined> {
  let over = false;
  let wake = () => {};
  const end = () => {
    over = true;
    wake();
  };
  void ended.then(end, end);
  const abort = () => wake();
  signal?.addEventListener('abort', abort, { once: true });
  try {
    for (;;) {
      signal?.throwIfAborted();
      const last = over;
      const { records, dropped } = watch.take();
      if (records.length > 0 || dropped > 0) yield { completions: unpack(records), dropped };
      else if (last) return;
      else {
        await new Promise<void>((resolve) => {
          wake = resolve;
          // The device keeps the event loop alive (unless unref'ed), and its end resolves this too.
          setTimeout(resolve, intervalMs).unref();
        });
      }
    }
  } finally {
    signal?.removeEventListener('abort', abort);
    watch.end();
  }
}

function unpack(records: Buffer): Completion[] {
  const view = new DataView(records.buffer, records.byteOffset, records.byteLength);
  const completions = [];
  for (let at = 0; at < records.length; at += RECORD) {
    completions.push({
      op: OPS[view.getUint8(at + 36)]!,
      offset: view.getFloat64(at + 16, LITTLE),
      length: view.getUint32(at + 24, LITTLE),
      fua: (view.getUint8(at + 37) & FUA) !== 0,
      result: view.getInt32(at + 28, LITTLE),
      latency: view.getFloat64(at + 8, LITTLE),
      time: view.getFloat64(at, LITTLE),
      tag: view.getUint16(at + 32, LITTLE),
      queue: view.getUint16(at + 34, LITTLE),
    });
  }
  return completions;
}
