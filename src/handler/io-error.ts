import { constants } from 'node:os';

import { checkOneOf } from '../check.ts';

/**
 * Errors of a request for the client, beside `EIO`:
 * - `ENOSPC`: the backing store is full; file systems report the error to their users.
 * - `EOPNOTSUPP`: the device lacks the operation; the block layer stops sending discards.
 * - `ETIMEDOUT`, `ENOLINK`, `ENODATA`, `EILSEQ`: a time-out, a lost connection, a medium error, a wrong
 *   checksum.
 * - `ETOOMANYREFS`, `EOVERFLOW`, for a zoned device: too many open zones, too many active zones.
 */
export type IoErrorCode =
  | 'EIO'
  | 'ENOSPC'
  | 'EOPNOTSUPP'
  | 'ETIMEDOUT'
  | 'ENOLINK'
  | 'ENODATA'
  | 'EILSEQ'
  | 'ETOOMANYREFS'
  | 'EOVERFLOW';

const CODES: readonly IoErrorCode[] = [
  'EIO',
  'ENOSPC',
  'EOPNOTSUPP',
  'ETIMEDOUT',
  'ENOLINK',
  'ENODATA',
  'EILSEQ',
  'ETOOMANYREFS',
  'EOVERFLOW',
];

/** From linux/errno.h; unknown to Node.js. */
const ETOOMANYREFS = 109;

// Shared by all copies of this package in a process.
const brand = Symbol.for('ublk.io-error');

/**
 * An error for a handler to fail a request with a given errno, without a warning. Any other exception
 * fails the request with `EIO`, and the device emits a `'warning'`.
 *
 * @example
 * write(request) {
 *   if (this.isFull) throw new IoError('ENOSPC');
 * }
 */
export class IoError extends Error {
  override readonly name: string = 'IoError';
  /** The error for the client. */
  readonly code: IoErrorCode;
  /** As a positive errno. */
  readonly errno: number;

  /** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for any other code. */
  constructor(code: IoErrorCode, message: string = code, options?: ErrorOptions) {
    super(message, options);
    this.code = checkOneOf(code, 'code', CODES);
    this.errno = this.code === 'ETOOMANYREFS' ? ETOOMANYREFS : constants.errno[this.code];
    Object.defineProperty(this, brand, { value: true });
  }

  /** @internal The error for the client after an uncaught error of a backend. */
  static of(name: string, message: string): IoError {
    const code = CODES.find((known) => known === name) ?? 'EIO';
    return new IoError(code, message);
  }

  /** Whether `value` is an `IoError`, also of another copy of the package. */
  static is(value: unknown): value is IoError {
    return value instanceof Error && brand in value;
  }
}
