import { checkAbsolutePath, checkIntegers, checkKeys, checkPath } from '../check.ts';
import { wrong } from '../errors.ts';
import type { NativeHttp, NativeTarget } from '../native.ts';
import { checkBlock } from './presentation.ts';

/** Options of {@link targets.http}. */
export interface HttpTargetOptions {
  /**
   * How long an answer of the server may take, with the connection, in milliseconds from 1 to 600000.
   * @default 30000
   */
  readonly answerTimeoutMs?: number | undefined;
  /**
   * How long a read is tried again where the server cannot be reached, breaks off or is busy, before the read
   * fails with an I/O error, in milliseconds from 0 to 86400000.
   * @default 60000
   */
  readonly retryTimeoutMs?: number | undefined;
  /**
   * The number of requests to the server at a time, 1 to 64.
   * @default 8
   */
  readonly connections?: number | undefined;
  /**
   * The path of a file with the certificates (PEM) of the authorities to trust.
   * @default Mozilla's list of authorities
   */
  readonly authorities?: string | URL | undefined;
  /**
   * The unit of addressing in bytes: 512, 1024, 2048 or 4096.
   * @default 512
   */
  readonly logicalBlockSize?: number | undefined;
}

/** A file on a web server. */
export interface HttpTarget extends HttpTargetOptions {
  readonly kind: 'http';
  readonly url: string;
}

/** The least and the largest value of each limit. */
const LIMITS = {
  answerTimeoutMs: [1, 600_000],
  retryTimeoutMs: [0, 86_400_000],
  connections: [1, 64],
} as const;
const KEYS = [...Object.keys(LIMITS), 'authorities', 'logicalBlockSize'];
const FORMS = 'the forms are http://HOST[:PORT]/PATH and https://HOST[:PORT]/PATH';

/**
 * A target on a file of a web server, for reading only: {@link targets.overlay} takes writes. Each read of
 * the device is a request for a range; clients that go through the page cache read ahead. The server must know
 * ranges, and must tell versions of the file apart by `ETag` or `Last-Modified`: reads fail when the file is
 * not the version of the start any more.
 *
 * @example
 * await using device = await createDevice({
 *   target: targets.overlay(targets.http('https://images.example/debian.img'), 'vm1.layer', {
 *     create: true,
 *   }),
 * });
 *
 * Creating the device fails with `ERR_UBLK_NO_BACKEND` without a server or without the file; with
 * `ERR_UBLK_PERMISSION` where the server wants a password; with `ERR_UBLK_TIMEOUT`; with
 * `ERR_UBLK_BAD_BACKEND` where the server knows no ranges or no versions, or cannot be trusted.
 *
 * @param url The address, without user and password; a signature in the query is kept from messages.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function httpTarget(url: string | URL, options: HttpTargetOptions = {}): HttpTarget {
  checkKeys(options, 'targets.http()', KEYS);
  const { authorities } = options;
  const target: HttpTarget = Object.freeze({
    ...options,
    ...(authorities === undefined ? {} : { authorities: checkPath(authorities, 'authorities') }),
    kind: 'http',
    url: url instanceof URL ? url.href : url,
  });
  toNativeHttp(target);
  return target;
}

/** Checks an HTTP target and converts the target for the addon. */
export function toNativeHttp(target: HttpTarget): NativeTarget {
  checkKeys(target, 'an HTTP target', ['kind', 'url', ...KEYS]);
  const { url, authorities, logicalBlockSize } = target;
  const http: NativeHttp = {
    url: checkUrl(url),
    ...checkIntegers(target, LIMITS),
    ...(authorities === undefined
      ? {}
      : { authorities: checkAbsolutePath(authorities, 'authorities') }),
  };
  return {
    kind: 'http',
    http,
    ...(logicalBlockSize === undefined ? {} : { logicalBlockSize: checkBlock(logicalBlockSize) }),
  };
}

/** An address without its query, which may hold a signature. */
export function withoutQuery(url: string): string {
  return url.replace(/[?#].*$/s, '');
}

function checkUrl(url: unknown): string {
  if (typeof url !== 'string') throw wrong('url', 'must be a text or a URL', FORMS);
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (parsed === undefined || !/^https?:$/.test(parsed.protocol)) {
    const text = JSON.stringify(withoutQuery(url));
    throw wrong('url', `is ${text}, which is no address of a file on a web server`, FORMS);
  }
  if (parsed.username !== '' || parsed.password !== '') {
    const hint =
      'an address with a signature in its query works, or a proxy that adds the password';
    throw wrong('url', 'has a user or a password, which ublk would have to write down', hint);
  }
  return url;
}
