import { inspect } from 'node:util';

import { UblkError, UblkErrorCode, type RequestInfo } from '../errors.ts';
import type { CheckedHandler } from './handler.ts';

/** What a worker is started with. */
export interface WorkerStart {
  readonly url: string;
  readonly data: unknown;
}

/** What a worker has to serve. */
export interface Assignment {
  readonly bridge: number;
  readonly queues: readonly number[];
  readonly depth: number;
  readonly spinUsec: number;
}

/** What of a handler crosses threads. */
export type HandlerShape = Omit<CheckedHandler, 'methods'>;

/** An error on its way between threads, which strips it of its class. */
export interface ErrorMessage {
  readonly code: UblkErrorCode;
  readonly message: string;
  readonly hint: string | undefined;
  readonly request: RequestInfo | undefined;
  readonly cause: unknown;
}

/** What a worker says. */
export type FromWorker =
  | { readonly shape: HandlerShape }
  | { readonly failure: ErrorMessage }
  | { readonly warning: ErrorMessage }
  | { readonly serving: true };

/** An error as it can be sent. */
export function toMessage(error: unknown): ErrorMessage {
  const own = UblkError.is(error);
  const message = error instanceof Error ? error.message : String(error);
  return {
    code: own ? error.code : UblkErrorCode.Handler,
    message: own ? message : `the handler's module fails: ${message}`,
    hint: own ? error.hint : undefined,
    request: own ? error.request : undefined,
    cause: sendable(own ? error.cause : error),
  };
}

/** The error that was sent. */
export function fromMessage({ code, message, ...details }: ErrorMessage): UblkError {
  return new UblkError(code, message, details);
}

/** How many causes of causes cross threads: an error may be its own. */
const MOST_CAUSES = 8;

/** Errors can be sent, with their causes and whatever hangs on them; of other things, their text. */
function sendable(cause: unknown, depth = 0): unknown {
  if (cause === undefined || depth === MOST_CAUSES) return undefined;
  if (!(cause instanceof Error)) return inspect(cause);
  const below = sendable(cause.cause, depth + 1);
  const copy = new Error(cause.message, below === undefined ? undefined : { cause: below });
  copy.name = cause.name;
  if (cause.stack !== undefined) copy.stack = cause.stack;
  return copy;
}
