import { setTimeout as pause } from 'node:timers/promises';
import { deserialize, serialize } from 'node:v8';

import { toUblkError, UblkError, UblkErrorCode } from '../errors.ts';
import type { Handler } from './types.ts';

/** How long `suspend` and `resume` of a handler may take, in milliseconds. */
export const STATE_LIMIT_MS = 30_000;

/** The most bytes of the state of one device. */
const MOST_BYTES = 64 << 20;

/** The threads of a device's handler that keep state, as one. */
export interface StateKeeper {
  /** One value per thread, in the order of the threads. */
  suspend(): Promise<unknown[]>;
  /** Takes the values that {@link suspend} of another server has returned. */
  resume(states: readonly unknown[]): Promise<void>;
}

/** The handler of this thread. */
export function keeperOf(handler: Handler): StateKeeper {
  return {
    suspend: async () => [await suspendOne(handler)],
    resume: async ([state]) => await resumeOne(handler, state),
  };
}

/** @throws {UblkError} `ERR_UBLK_HANDLER` when the method fails. */
export async function suspendOne(handler: Handler): Promise<unknown> {
  return await called('suspend', () => handler.suspend?.());
}

/** @throws {UblkError} `ERR_UBLK_HANDLER` when the method fails. */
export async function resumeOne(handler: Handler, state: unknown): Promise<void> {
  await called('resume', () => handler.resume?.(state));
}

async function called<T>(method: string, call: () => T): Promise<Awaited<T>> {
  try {
    return await call();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw failed(`the handler's ${method}() fails: ${reason}`, cause);
  }
}

/**
 * Ends a wait that would never end.
 *
 * @throws {UblkError} `ERR_UBLK_TIMEOUT` after the time limit, and the error of the wait.
 */
export async function inTime<T>(method: string, wait: Promise<T>): Promise<T> {
  const over = new AbortController();
  const late = pause(STATE_LIMIT_MS, undefined, { signal: over.signal, ref: false }).then(() => {
    const message = `the handler's ${method}() has not ended within ${STATE_LIMIT_MS / 1000} s`;
    throw new UblkError(UblkErrorCode.Timeout, message);
  });
  late.catch(() => {});
  try {
    return await Promise.race([wait, late]);
  } finally {
    over.abort();
  }
}

/**
 * The state of a device's handler as text.
 *
 * @throws {UblkError} `ERR_UBLK_HANDLER` for a value that cannot be copied, or that is too large.
 */
export function toText(states: readonly unknown[]): string {
  let bytes: Buffer;
  try {
    bytes = serialize(states);
  } catch (cause) {
    throw failed(`what suspend() returns cannot be copied: ${toUblkError(cause).message}`, cause);
  }
  if (bytes.length <= MOST_BYTES) return bytes.toString('base64');
  const hint = 'keep large state in a file, and hand its path over';
  const message = `what suspend() returns takes ${bytes.length} bytes; at most ${MOST_BYTES} are handed over`;
  throw new UblkError(UblkErrorCode.Handler, message, { hint });
}

/** @throws {UblkError} `ERR_UBLK_HANDLER` for text that this Node.js cannot read. */
export function fromText(text: string): unknown[] {
  try {
    return deserialize(Buffer.from(text, 'base64')) as unknown[];
  } catch (cause) {
    throw failed(
      'this Node.js cannot read the state of the old server: it is of a later one',
      cause,
    );
  }
}

/**
 * Whether the next handler has `resume` for the states of the last one, one per thread.
 *
 * @throws {UblkError} `ERR_UBLK_HANDLER` if not.
 */
export function checkKeepers(states: number, keepers: number): void {
  if (states === keepers || states === 0) return;
  const message =
    keepers === 0
      ? "the old server's handler has state, and the new one has no resume()"
      : `the old server's handler has state in ${states} threads, and the new one runs in ${keepers}`;
  const hint = 'hand over to a handler with suspend() and resume() in as many workers';
  throw new UblkError(UblkErrorCode.Handler, message, { hint });
}

function failed(message: string, cause: unknown): UblkError {
  return new UblkError(UblkErrorCode.Handler, message, { cause });
}
