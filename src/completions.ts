import { checkInteger, checkKeys } from './check.ts';
import type { NativeDevice, NativeWatch } from './native.ts';
import { OPS, type RequestOp } from './request-op.ts';

/** A request that the server has answered. */
export interface Completion {
  readonly op: RequestOp;
  /** Where, in bytes. */
  readonly offset: number;
  /** How many bytes. */
  readonly length: number;
  /** Whether the write had to be durable before it was answered. */
  readonly fua: boolean;
  /** Not negative: it succeeded. Else a negative errno. */
  readonly result: number;
  /** How long the server had it, in nanoseconds. */
  readonly latency: number;
  /** When it was answered, in nanoseconds of the clock of `process.hrtime.bigint()`. */
  readonly time: number;
  /** Its tag: unique in its queue while it is under way. */
  readonly tag: number;
  readonly queue: number;
}

/** What has ended since the batch before, queue by queue, each in order. */
export interface CompletionBatch {
  readonly completions: readonly Completion[];
  /** How many completions found no room since the batch before, and are lost. */
  readonly dropped: number;
}

/** How {@link Device.completions} watches. */
export interface CompletionsOptions {
  /**
   * Completions of each queue that wait for the next batch, 1 to 1048576, rounded up to a power of
   * two; 56 bytes each.
   * @default 16384
   */
  readonly capacity?: number | undefined;
  /**
   * How long to wait for more when there is nothing, in milliseconds, 1 to 60000.
   * @default 20
   */
  readonly intervalMs?: number | undefined;
  /** Ends the iteration: it throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

const RECORD = 40;
const FUA = 1;
const LITTLE = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Watches a device from now on, until it has `ended`. */
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
  // An iteration that nobody begins and nobody holds ends its watch when it is collected.
  signal?.addEventListener('abort', () => held.deref()?.end(), { once: true });
  const all = batches(watch, ended, intervalMs, signal);
  return {
    next: () => all.next(),
    // A generator that has not begun runs none of its code, `finally` neither.
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
          // The device keeps the event loop alive, unless it was told not to, and then wakes us.
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
