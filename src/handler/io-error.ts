import { constants } from 'node:os';

import { checkOneOf } from '../check.ts';

/**
 * What a client can be told, beside that a request failed (`EIO`):
 * - `ENOSPC`: there is no space left behind the device; file systems say so to their users.
 * - `EOPNOTSUPP`: it cannot do that; the block layer stops asking for discards.
 * - `ETIMEDOUT`, `ENOLINK`, `ENODATA`, `EILSEQ`: a time-out, a lost connection, a medium error, a
 *   checksum that is wrong.
 * - `ETOOMANYREFS`, `EOVERFLOW`, of a zoned device: too many zones are open, too many are active.
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

/** linux/errno.h; Node.js does not know it. */
const ETOOMANYREFS = 109;

// Known to every copy of this package that a process may hold.
const brand = Symbol.for('ublk.io-error');

/**
 * Thrown by a handler to fail a request with a given error, quietly: any other error fails it with
 * `EIO` and is told as a `'warning'`.
 *
 * @example
 * write(request) {
 *   if (this.isFull) throw new IoError('ENOSPC');
 * }
 */
export class IoError extends Error {
  override readonly name: string = 'IoError';
  /** What the client is told. */
  readonly code: IoErrorCode;
  /** As a positive errno. */
  readonly errno: number;

  /** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`: clients cannot be told this. */
  constructor(code: IoErrorCode, message: string = code, options?: ErrorOptions) {
    super(message, options);
    this.code = checkOneOf(code, 'the code of an IoError', CODES);
    this.errno = this.code === 'ETOOMANYREFS' ? ETOOMANYREFS : constants.errno[this.code];
    Object.defineProperty(this, brand, { value: true });
  }

  /** @internal What a client is told when nobody catches what a backend said. */
  static of(name: string, message: string): IoError {
    const code = CODES.find((known) => known === name) ?? 'EIO';
    return new IoError(code, message);
  }

  /** Whether `value` is an `IoError`, of this copy of the package or another one. */
  static is(value: unknown): value is IoError {
    return value instanceof Error && brand in value;
  }
}
