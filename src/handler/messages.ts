import { inspect } from 'node:util';

import { UblkError, UblkErrorCode, type RequestInfo } from '../errors.ts';
import type { CheckedHandler } from './handler.ts';

/** The data for the start of a worker. */
export interface WorkerStart {
  readonly url: string;
  readonly data: unknown;
}

/** The queues for a worker. */
export interface Assignment {
  readonly bridge: number;
  readonly queues: readonly number[];
  readonly depth: number;
  readonly spinUsec: number;
}

/** The messages for a worker that serves. */
export type ToWorker =
  | Assignment
  | { readonly suspend: true }
  /** The state of the last server's worker. */
  | { readonly resume: unknown };

/** The parts of a handler that cross threads. */
export type HandlerShape = Omit<CheckedHandler, 'methods'>;

/** An error between threads, as data: messages lose classes. */
export interface ErrorMessage {
  readonly code: UblkErrorCode;
  readonly message: string;
  readonly hint: string | undefined;
  readonly request: RequestInfo | undefined;
  readonly cause: unknown;
}

/** The messages of a worker. */
export type FromWorker =
  | { readonly shape: HandlerShape }
  | { readonly failure: ErrorMessage }
  | { readonly warning: ErrorMessage }
  | { readonly serving: true }
  | { readonly suspended: unknown }
  | { readonly resumed: true };

/** An error as a message. */
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

/** The error of a message. */
export function fromMessage({ code, message, ...details }: ErrorMessage): UblkError {
  return new UblkError(code, message, details);
}

/** The largest depth of causes in a message: an error may be its own cause. */
const MOST_CAUSES = 8;

/** A cause as a message: errors with their causes and properties, other values as text. */
function sendable(cause: unknown, depth = 0): unknown {
  if (cause === undefined || depth === MOST_CAUSES) return undefined;
  if (!(cause instanceof Error)) return inspect(cause);
  const below = sendable(cause.cause, depth + 1);
  const copy = new Error(cause.message, below === undefined ? undefined : { cause: below });
  copy.name = cause.name;
  if (cause.stack !== undefined) copy.stack = cause.stack;
  return copy;
}
