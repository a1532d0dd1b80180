import { checkInteger, checkKeys, checkOneOf } from './check.ts';
import type { NativeDevice, NativeStall, NativeWatchdog } from './native.ts';
import { OPS, type RequestOp } from './request-op.ts';

/** What is done about a stall, beside the event. */
export type WatchdogAction = 'event' | 'quiesce';

/** A watchdog of a device's requests. */
export interface WatchdogOptions {
  /**
   * After how long a request in flight counts as stalled, or a thread that does not answer, in
   * milliseconds, 100 to 3600000. A stall is reported at most three seconds late, and never early.
   * @default 30000
   */
  readonly afterMs?: number | undefined;
  /**
   * What is done about a stall, beside the event `stalled`. `quiesce` leaves a device with `recovery` to
   * the next server at the first stall: later requests wait in the kernel, and the server leaves when
   * the requests in flight have ended, or its process has.
   * @default 'event'
   */
  readonly action?: WatchdogAction | undefined;
}

/** A request that does not end, or a thread of the server that does not answer. */
export interface Stalled {
  /** All that is known, in words. */
  readonly message: string;
  /** How long the request has certainly been in flight, or the thread has not answered. */
  readonly ageMs: number;
  /**
   * What the request waits for: the answer of the `handler`, the `buffer` in the kernel, a `pause` of the
   * target, or a step on a file; `thread` where a thread does not answer.
   */
  readonly waitsFor:
    | 'handler'
    | 'buffer'
    | 'pause'
    | 'read'
    | 'write'
    | 'sync'
    | 'discard'
    | 'write-zeroes'
    | 'allocate'
    | 'thread';
  /** The file of the step, where the file has a name. */
  readonly file?: string | undefined;
  /** The name of the thread that does not answer, as `ps -L` shows the name. */
  readonly thread?: string | undefined;
  /** The number of the request's queue. */
  readonly queue?: number | undefined;
  /** The operation of the request. */
  readonly op?: RequestOp | undefined;
  /** The place of the request on the device, in bytes. */
  readonly offset?: number | undefined;
  /** The length of the request in bytes. */
  readonly length?: number | undefined;
}

/** The default of {@link WatchdogOptions.afterMs}. */
const AFTER_MS = 30_000;
const ACTIONS: readonly WatchdogAction[] = ['event', 'quiesce'];

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` */
export function toNativeWatchdog(options: WatchdogOptions): NativeWatchdog {
  checkKeys(options, 'watchdog', ['afterMs', 'action'], 'watchdog');
  const { afterMs = AFTER_MS, action = 'event' } = options;
  checkOneOf(action, 'watchdog.action', ACTIONS);
  return { afterMs: checkInteger(afterMs, 'watchdog.afterMs', 100, 3_600_000) };
}

/** Looks for stalls four times within the patience of the watchdog, or once a second. */
export function lookOften(
  native: Pick<NativeDevice, 'stalls'>,
  { afterMs = AFTER_MS }: WatchdogOptions,
  report: (stall: NativeStall) => void,
): Disposable {
  const look = (): void => native.stalls().forEach(report);
  const timer = setInterval(look, Math.min(1000, Math.ceil(afterMs / 4))).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/** A stall as the addon has found the stall, with words for people. */
export function describeStall(path: string, stall: NativeStall): Stalled {
  const { op: number, ageMs, ...rest } = stall;
  const op = number === undefined ? undefined : OPS[number];
  const shown = { ...rest, ageMs: Math.floor(ageMs), ...(op && { op }) };
  const message = `${path}: ${inWords({ ...shown, op })}`;
  return Object.freeze({ message, ...shown }) as Stalled;
}

type Found = Omit<NativeStall, 'op'> & Pick<Stalled, 'op'>;

function inWords({ op, offset, length, ageMs, waitsFor, file, thread }: Found): string {
  const since = `for ${(ageMs / 1000).toFixed(1)} s`;
  if (waitsFor === 'thread') return `${thread} has not answered ${since}`;
  const place = length ? ` of ${length} bytes at ${offset}` : '';
  return `${op ?? 'a request'}${place} has not ended ${since}, and waits for ${cause(waitsFor, file)}`;
}

function cause(waitsFor: string, file: string | undefined): string {
  if (waitsFor === 'handler') return 'the handler';
  if (waitsFor === 'buffer') return "the request's buffer in the kernel";
  if (waitsFor === 'pause') return 'a pause of the target';
  return `a ${waitsFor} of ${file ?? 'the backing store'}`;
}
