import { inspect } from 'node:util';

import type { RequestOp } from './request-op.ts';

/** What went wrong, as programs branch on it. */
export const UblkErrorCode = {
  /** The kernel has no ublk driver, or its module is not loaded. */
  NoDriver: 'ERR_UBLK_NO_DRIVER',
  /** io_uring is disabled for this process, or cannot do what is needed. */
  NoIoUring: 'ERR_UBLK_NO_IO_URING',
  /** This user may not. */
  Permission: 'ERR_UBLK_PERMISSION',
  /** The kernel lacks a feature that was asked for. */
  Unsupported: 'ERR_UBLK_UNSUPPORTED',
  /** A value is of the wrong type or out of range, or two do not go together. */
  InvalidArgument: 'ERR_UBLK_INVALID_ARGUMENT',
  /** No device has this id. */
  NoDevice: 'ERR_UBLK_NO_DEVICE',
  /** The id is taken. */
  DeviceExists: 'ERR_UBLK_DEVICE_EXISTS',
  /** The device, or what lies behind it, is in use by somebody else. */
  Busy: 'ERR_UBLK_BUSY',
  /** What should lie behind the device does not exist. */
  NoBackend: 'ERR_UBLK_NO_BACKEND',
  /** What should lie behind the device cannot serve as such. */
  BadBackend: 'ERR_UBLK_BAD_BACKEND',
  /** The kernel did not answer in time. */
  Timeout: 'ERR_UBLK_TIMEOUT',
  /** A handler threw, or its promise was rejected. */
  Handler: 'ERR_UBLK_HANDLER',
  /** A handler did not answer a request in time. */
  RequestTimeout: 'ERR_UBLK_REQUEST_TIMEOUT',
  /** A handler answered, or went on with, a request that had ended. */
  LateAnswer: 'ERR_UBLK_LATE_ANSWER',
  /** The event loop that answers requests does not turn. */
  Blocked: 'ERR_UBLK_BLOCKED',
  /** The pieces that a handler answered with do not fit its request. */
  BadPlan: 'ERR_UBLK_BAD_PLAN',
  /** A handler transferred a request's memory away. */
  DataDetached: 'ERR_UBLK_DATA_DETACHED',
  /** The device has ended. */
  Closed: 'ERR_UBLK_CLOSED',
  /** A request of a simulated disk failed. */
  Io: 'ERR_UBLK_IO',
  /**
   * A resource has run out: file descriptors, threads, memory, or the tables of a reactor pool. The
   * message names the call, the hint the limit (`ulimit`, cgroup).
   */
  Resources: 'ERR_UBLK_RESOURCES',
  /** Anything else that the kernel refused. */
  Kernel: 'ERR_UBLK_KERNEL',
  /** A defect of this package; please report it. */
  Internal: 'ERR_UBLK_INTERNAL',
  /** ublk is a part of Linux; this is another system. */
  UnsupportedPlatform: 'ERR_UBLK_UNSUPPORTED_PLATFORM',
  /** The native addon for this machine is not installed, or does not load. */
  NoAddon: 'ERR_UBLK_NO_ADDON',
} as const;

/** One of the {@link UblkErrorCode} strings. */
export type UblkErrorCode = (typeof UblkErrorCode)[keyof typeof UblkErrorCode];

/** An error as the addon hands it over: data, no class. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly errno?: number | undefined;
  readonly syscall?: string | undefined;
  readonly hint?: string | undefined;
}

/** What goes with an error's message. */
export interface UblkErrorDetails extends ErrorOptions {
  readonly errno?: number | undefined;
  readonly syscall?: string | undefined;
  readonly hint?: string | undefined;
  readonly request?: RequestInfo | undefined;
}

/** The request that an error is about. */
export interface RequestInfo {
  readonly op: RequestOp;
  /** Where it begins, in bytes. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
  readonly queue: number;
}

// Known to every copy of this package that a process may hold.
const brand = Symbol.for('ublk.error');

/**
 * The one error of this package. `message` says what was tried and what came of it.
 *
 * @example
 * try {
 *   await createDevice({ target: targets.file('disk.img') });
 * } catch (error) {
 *   if (UblkError.is(error) && error.code === UblkErrorCode.NoBackend) await makeImage();
 *   else throw error;
 * }
 */
export class UblkError extends Error {
  override readonly name: string = 'UblkError';
  /** What went wrong, for programs. */
  readonly code: UblkErrorCode;
  /** What the kernel answered, as a positive errno. */
  declare readonly errno: number | undefined;
  /** The system call or ublk command that answered. */
  declare readonly syscall: string | undefined;
  /** What is probably wrong, and what to do about it. */
  declare readonly hint: string | undefined;
  /** The request that it is about. */
  declare readonly request: RequestInfo | undefined;

  constructor(code: UblkErrorCode, message: string, details: UblkErrorDetails = {}) {
    super(message, 'cause' in details ? { cause: details.cause } : undefined);
    this.code = code;
    const { errno, syscall, hint, request } = details;
    // Only what there is, so that console.log() prints nothing of the rest.
    const known = Object.entries({ errno, syscall, hint, request }).filter(
      ([, value]) => value !== undefined,
    );
    Object.assign(this, Object.fromEntries(known));
    Object.defineProperty(this, brand, { value: true });
  }

  /** What `JSON.stringify()` writes: an `Error` alone would give nothing of its message. */
  toJSON(): Failure & { readonly name: string; readonly request?: RequestInfo | undefined } {
    const { name, code, message, errno, syscall, hint, request } = this;
    return { name, code, message, errno, syscall, hint, request };
  }

  /** Whether `value` is a `UblkError`, of this copy of the package or another one. */
  static is(value: unknown): value is UblkError {
    return value instanceof Error && brand in value;
  }
}

/** The addon's answer: a value or a failure. */
export type Outcome<T> =
  | { readonly value: T; readonly failure?: undefined }
  | { readonly value?: undefined; readonly failure: Failure };

/**
 * The value of an answer.
 *
 * @throws {UblkError} The answer's failure.
 */
export function unwrap<T>(outcome: Outcome<T>): T {
  if (outcome.failure) throw toError(outcome.failure);
  return outcome.value as T;
}

/** The error that the addon's data describes. */
export function toError(failure: Failure): UblkError {
  return new UblkError(failure.code as UblkErrorCode, failure.message, failure);
}

/** What was thrown, in one line. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : inspect(thrown);
}

/**
 * An error as a warning that Node.js prints: below the message, its hint and its cause, with stack.
 */
export function toProcessWarning(error: UblkError): UblkError {
  const { hint, cause } = error;
  const lines = [hint, cause === undefined ? undefined : `caused by ${inspect(cause)}`];
  const detail = lines.filter((line) => line !== undefined).join('\n');
  return detail === '' ? error : Object.defineProperty(error, 'detail', { value: detail });
}

/** An error about an argument. */
export function invalid(message: string, hint?: string): UblkError {
  return new UblkError(UblkErrorCode.InvalidArgument, message, { hint });
}
