import { checkInteger, checkKeys } from '../check.ts';
import { wrong } from '../errors.ts';
import type { NativeTarget } from '../native.ts';
import {
  PRESENTATION_KEYS,
  toNativePresentation,
  type PresentationOptions,
} from './presentation.ts';

/** Options of {@link targets.nbd}. */
export interface NbdTargetOptions extends PresentationOptions {
  /**
   * The limit of a connection to the server, with the negotiation, in milliseconds from 1 to 600000.
   * @default 10000
   */
  readonly connectTimeoutMs?: number | undefined;
  /**
   * How long requests wait for a lost connection before the requests fail with an I/O error, in
   * milliseconds from 0 to 86400000. ublk connects again until the device ends, also after this time.
   * @default 60000
   */
  readonly reconnectTimeoutMs?: number | undefined;
  /**
   * How long a connection with unanswered requests may bring nothing, in milliseconds from 1 to 86400000,
   * rounded up to seconds. Then ublk gives the connection up as a lost one, and sends the requests again on
   * another connection. A server that needs longer for a request, for example for a flush of much data,
   * needs a larger value.
   * @default 300000
   */
  readonly answerTimeoutMs?: number | undefined;
}

/** An export of an NBD server. */
export interface NbdTarget extends NbdTargetOptions {
  readonly kind: 'nbd';
  readonly uri: string;
}

/** The least and the largest value of each limit. */
const LIMITS = {
  connectTimeoutMs: [1, 600_000],
  reconnectTimeoutMs: [0, 86_400_000],
  answerTimeoutMs: [1, 86_400_000],
} as const;
const KEYS = [...Object.keys(LIMITS), ...PRESENTATION_KEYS];
const FORMS = 'the forms are nbd://HOST[:PORT]/EXPORT and nbd+unix:///EXPORT?socket=PATH';

/**
 * A target on an NBD server: nbdkit, qemu-nbd, or any other. The server says the size and the block sizes,
 * and whether the device flushes, discards and writes zeros. An export that the server serves for reading
 * only needs `readOnly: true`. The device's requests are copied (buffers `copy`). TLS is not supported.
 *
 * @example
 * await using device = await createDevice({
 *   target: targets.nbd('nbd://storage.example/vm1'),
 * });
 *
 * @param uri `nbd://HOST[:PORT]/EXPORT` or `nbd+unix:///EXPORT?socket=/PATH`.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function nbdTarget(uri: string | URL, options: NbdTargetOptions = {}): NbdTarget {
  checkKeys(options, 'targets.nbd()', KEYS);
  const text = uri instanceof URL ? uri.href : uri;
  const target: NbdTarget = Object.freeze({ ...options, kind: 'nbd', uri: text });
  toNativeNbd(target);
  return target;
}

/** Checks an NBD target and converts the target for the addon. */
export function toNativeNbd(target: NbdTarget): NativeTarget {
  checkKeys(target, 'an NBD target', ['kind', 'uri', ...KEYS]);
  return {
    kind: 'nbd',
    uri: checkUri(target.uri),
    ...limit(target, 'connectTimeoutMs'),
    ...limit(target, 'reconnectTimeoutMs'),
    ...limit(target, 'answerTimeoutMs'),
    ...toNativePresentation(target),
  };
}

/** The limit with this name, if the target has one. */
function limit(target: NbdTarget, name: keyof typeof LIMITS): Partial<NativeTarget> {
  const value = target[name];
  const [least, most] = LIMITS[name];
  return value === undefined ? {} : { [name]: checkInteger(value, name, least, most) };
}

/** The addon reads the whole address; here the scheme is checked, so that a mistake shows at once. */
function checkUri(uri: unknown): string {
  if (typeof uri !== 'string') throw wrong('uri', 'must be a text or a URL', FORMS);
  if (/^nbd(s|s\+unix):\/\//.test(uri)) {
    const hint = 'use nbd:// through a tunnel with encryption: ssh -L, stunnel, WireGuard';
    throw wrong('uri', `is ${uri}, and asks for TLS, which ublk does not support`, hint);
  }
  if (/^nbd:\/\/[^/?#]|^nbd\+unix:\/\/\/[^?#]*\?socket=\//.test(uri)) return uri;
  throw wrong('uri', `is ${JSON.stringify(uri)}, which is no address of an NBD export`, FORMS);
}
