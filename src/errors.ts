import { inspect } from 'node:util';

import type { Outcome } from '../native/binding.cjs';
import type { RequestOp } from './request-op.ts';

export type { Outcome };

/** The codes of {@link UblkError}, for programs. */
export const UblkErrorCode = {
  /** The kernel has no ublk driver, or its module is not loaded. */
  NoDriver: 'ERR_UBLK_NO_DRIVER',
  /** io_uring is disabled for this process, or lacks a needed operation. */
  NoIoUring: 'ERR_UBLK_NO_IO_URING',
  /** This user lacks a permission. */
  Permission: 'ERR_UBLK_PERMISSION',
  /** The kernel lacks a requested feature. */
  Unsupported: 'ERR_UBLK_UNSUPPORTED',
  /** A value has the wrong type or is out of range, or two values exclude each other. */
  InvalidArgument: 'ERR_UBLK_INVALID_ARGUMENT',
  /** No device has this id. */
  NoDevice: 'ERR_UBLK_NO_DEVICE',
  /** Another device has the id. */
  DeviceExists: 'ERR_UBLK_DEVICE_EXISTS',
  /** The device or the backing store is in use. */
  Busy: 'ERR_UBLK_BUSY',
  /** The backing store does not exist. */
  NoBackend: 'ERR_UBLK_NO_BACKEND',
  /** The backing store cannot be served. */
  BadBackend: 'ERR_UBLK_BAD_BACKEND',
  /** The record that a server has left of a device is half-written, foreign or of a later version. */
  BadRecord: 'ERR_UBLK_BAD_RECORD',
  /** No service listens at the control socket, or the service has ended. */
  NoService: 'ERR_UBLK_NO_SERVICE',
  /** The kernel did not answer in time. */
  Timeout: 'ERR_UBLK_TIMEOUT',
  /** A handler threw, or its promise was rejected. */
  Handler: 'ERR_UBLK_HANDLER',
  /** A handler did not answer a request in time. */
  RequestTimeout: 'ERR_UBLK_REQUEST_TIMEOUT',
  /** A handler answered a request after its end, or took another step. */
  LateAnswer: 'ERR_UBLK_LATE_ANSWER',
  /** The event loop for the handler's answers is blocked. */
  Blocked: 'ERR_UBLK_BLOCKED',
  /** A handler answered with pieces that do not fit the request. */
  BadPlan: 'ERR_UBLK_BAD_PLAN',
  /** A handler transferred a request's memory to another thread. */
  DataDetached: 'ERR_UBLK_DATA_DETACHED',
  /** The device has ended. */
  Closed: 'ERR_UBLK_CLOSED',
  /** A request of a simulated disk failed. */
  Io: 'ERR_UBLK_IO',
  /**
   * File descriptors, threads, memory, or the tables of a reactor pool have run out. The message
   * names the call, the hint the limit (`ulimit`, cgroup).
   */
  Resources: 'ERR_UBLK_RESOURCES',
  /** Any other refusal of the kernel. */
  Kernel: 'ERR_UBLK_KERNEL',
  /** A defect of this package; please report it. */
  Internal: 'ERR_UBLK_INTERNAL',
  /** This system is not Linux. */
  UnsupportedPlatform: 'ERR_UBLK_UNSUPPORTED_PLATFORM',
  /** The native addon for this machine is not installed, or does not load. */
  NoAddon: 'ERR_UBLK_NO_ADDON',
} as const;

/** A code of {@link UblkError}. */
export type UblkErrorCode = (typeof UblkErrorCode)[keyof typeof UblkErrorCode];

/** An error as plain data of the addon. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly errno?: number | undefined;
  readonly syscall?: string | undefined;
  readonly hint?: string | undefined;
}

/** Details of an error, beside the message. */
export interface UblkErrorDetails extends ErrorOptions {
  readonly errno?: number | undefined;
  readonly syscall?: string | undefined;
  readonly hint?: string | undefined;
  readonly key?: string | undefined;
  readonly request?: RequestInfo | undefined;
}

/** The request of an error. */
export interface RequestInfo {
  readonly op: RequestOp;
  /** In bytes. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
  readonly queue: number;
}

// Shared by all copies of this package in a process.
const brand = Symbol.for('ublk.error');

/**
 * The error class of this package. `message` names the attempt and the failure.
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
  /** The code, for programs. */
  readonly code: UblkErrorCode;
  /** The kernel's answer, as a positive errno. */
  declare readonly errno: number | undefined;
  /** The failed system call or ublk command. */
  declare readonly syscall: string | undefined;
  /** The probable cause and the fix. */
  declare readonly hint: string | undefined;
  /** The wrong argument or option, as a path: `depth`, `limits.maxSegments`, `target.targets[1].size`. */
  declare readonly key: string | undefined;
  /** The request of a handler's error. */
  declare readonly request: RequestInfo | undefined;

  constructor(code: UblkErrorCode, message: string, details: UblkErrorDetails = {}) {
    super(message, 'cause' in details ? { cause: details.cause } : undefined);
    this.code = code;
    const { errno, syscall, hint, key, request } = details;
    // Only known details become properties, so that console.log() prints no `undefined`.
    const known = Object.entries({ errno, syscall, hint, key, request }).filter(
      ([, value]) => value !== undefined,
    );
    Object.assign(this, Object.fromEntries(known));
    Object.defineProperty(this, brand, { value: true });
  }

  /** For `JSON.stringify()`, which leaves out the message of an `Error`. */
  toJSON(): Failure & Pick<UblkErrorDetails, 'key' | 'request'> & { readonly name: string } {
    const { name, code, message, errno, syscall, hint, key, request } = this;
    return { name, code, message, errno, syscall, hint, key, request };
  }

  /** Whether `value` is a `UblkError`, also of another copy of the package. */
  static is(value: unknown): value is UblkError {
    return value instanceof Error && brand in value;
  }
}

/**
 * The value of an answer.
 *
 * @throws {UblkError} The answer's failure.
 */
export function unwrap<T>(outcome: Outcome<T>): T {
  if (outcome.failure) throw toError(outcome.failure);
  return outcome.value as T;
}

/** The error for a failure of the addon. */
export function toError(failure: Failure): UblkError {
  return new UblkError(failure.code as UblkErrorCode, failure.message, failure);
}

/** A thrown value as a line of text. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : inspect(thrown);
}

/** A thrown value as an error of this package: anything else is a defect. */
export function toUblkError(thrown: unknown): UblkError {
  if (UblkError.is(thrown)) return thrown;
  return new UblkError(UblkErrorCode.Internal, messageOf(thrown), { cause: thrown });
}

/**
 * An error as a warning of Node.js: the message, then the hint and the cause, with stack.
 */
export function toProcessWarning(error: UblkError): UblkError {
  const { hint, cause } = error;
  const lines = [hint, cause === undefined ? undefined : `caused by ${inspect(cause)}`];
  const detail = lines.filter((line) => line !== undefined).join('\n');
  return detail === '' ? error : Object.defineProperty(error, 'detail', { value: detail });
}

/** An error about arguments; `key` is the wrong one: see {@link UblkError.key}. */
export function invalid(message: string, hint?: string, key?: string): UblkError {
  return new UblkError(UblkErrorCode.InvalidArgument, message, { hint, key });
}

/** An error about the argument or option `key`; the message is the key, followed by `problem`. */
export function wrong(key: string, problem: string, hint?: string): UblkError {
  return invalid(`${key} ${problem}`, hint, key);
}

/**
 * Runs a check of the value of the option `outer`. The key of an error then begins with `outer`: the
 * `path` of a `target` becomes `target.path`.
 */
export function within<T>(outer: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (UblkError.is(error)) {
      Object.assign(error, { key: error.key === undefined ? outer : `${outer}.${error.key}` });
    }
    throw error;
  }
}
