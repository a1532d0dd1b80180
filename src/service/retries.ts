import { toUblkError, UblkErrorCode, type UblkError } from '../errors.ts';
import type { Service, ServiceResult } from './service.ts';

/** The first pause before a device is tried again, and the longest, in milliseconds. */
const FIRST_MS = 1000;
const LONGEST_MS = 60_000;

/** Errors that stay until somebody changes the configuration or the machine. */
const LASTING: readonly string[] = [UblkErrorCode.InvalidArgument, UblkErrorCode.Unsupported];

/** A device that is going to be tried again. */
export interface Retry {
  readonly name: string;
  readonly error: UblkError;
  readonly afterMs: number;
}

/** The attempts at one device. */
interface Attempts {
  afterMs: number;
  /** When the device was served last. */
  servedAt: number;
  timer?: NodeJS.Timeout;
  /** The last error that was reported. */
  told?: string;
}

/**
 * Tries devices again that could not be served, or whose service has failed: after a second, then after
 * twice the last pause, up to a minute. A device that was served for a minute begins anew. Devices that
 * somebody has stopped are left alone. `report` hears of the first attempt, and of each other error.
 */
export function retryFailed(
  service: Service,
  signal: AbortSignal,
  report: (retry: Retry) => void,
): Disposable {
  const all = new Map<string, Attempts>();
  const attemptsOf = (name: string): Attempts => {
    const found = all.get(name) ?? { afterMs: FIRST_MS, servedAt: Infinity };
    all.set(name, found);
    return found;
  };
  const fail = (name: string, error: UblkError): void => {
    if (signal.aborted || service.handingOver || LASTING.includes(error.code)) return;
    const one = attemptsOf(name);
    if (Date.now() - one.servedAt >= LONGEST_MS) one.afterMs = FIRST_MS;
    const { afterMs } = one;
    one.afterMs = Math.min(2 * afterMs, LONGEST_MS);
    one.servedAt = Infinity;
    clearTimeout(one.timer);
    one.timer = setTimeout(() => void tryAgain(name), afterMs).unref();
    if (one.told !== error.message) report({ name, error, afterMs });
    one.told = error.message;
  };
  const tryAgain = async (name: string): Promise<void> => {
    try {
      const result = await service.retry(name, signal);
      if (result?.error) fail(name, result.error);
    } catch (error) {
      // The list of devices could not be had.
      fail(name, toUblkError(error));
    }
  };
  const serve = (name: string): void => {
    const one = all.get(name);
    if (one === undefined) return;
    one.servedAt = Date.now();
    clearTimeout(one.timer);
    delete one.told;
  };
  const end = (name: string, _device: unknown, error?: UblkError): void => {
    if (error) fail(name, error);
  };
  const reload = (results: readonly ServiceResult[]): void => {
    for (const { name, error } of results) if (error) fail(name, error);
  };
  service.on('serve', serve).on('end', end).on('reload', reload);
  reload(service.results);
  return {
    [Symbol.dispose]: () => {
      service.off('serve', serve).off('end', end).off('reload', reload);
      for (const { timer } of all.values()) clearTimeout(timer);
    },
  };
}
