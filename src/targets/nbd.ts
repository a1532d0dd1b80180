import { checkAbsolutePath, checkIntegers, checkKeys } from '../check.ts';
import { wrong } from '../errors.ts';
import type { NativeNbd, NativeTarget } from '../native.ts';
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
  /**
   * The folder with the certificates for `nbds://`, with the names of libnbd and nbdkit: `ca-cert.pem` (the
   * authority that must have signed the server's certificate) and, for a server that asks for them,
   * `client-cert.pem` and `client-key.pem`. The files are read anew for each connection.
   * @default none
   */
  readonly tlsCertificates?: string | URL | undefined;
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
const KEYS = [...Object.keys(LIMITS), 'tlsCertificates', ...PRESENTATION_KEYS];
const FORMS =
  'the forms are nbd://HOST[:PORT]/EXPORT, nbds://HOST[:PORT]/EXPORT with TLS, and ' +
  'nbd+unix:///EXPORT?socket=PATH';
const FOLDER = 'name the folder with ca-cert.pem, and with client-cert.pem and client-key.pem';

/**
 * A target on an NBD server: nbdkit, qemu-nbd, or any other. The server says the size and the block sizes,
 * and whether the device flushes, discards and writes zeros. An export that the server serves for reading
 * only needs `readOnly: true`. The device's requests are copied (buffers `copy`). `nbds://` uses TLS 1.3, carried
 * by the kernel, and needs `tlsCertificates`.
 *
 * @example
 * await using device = await createDevice({
 *   target: targets.nbd('nbd://storage.example/vm1'),
 * });
 *
 * @param uri `nbd://HOST[:PORT]/EXPORT`, `nbds://HOST[:PORT]/EXPORT` or `nbd+unix:///EXPORT?socket=/PATH`.
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
  const uri = checkUri(target.uri);
  return {
    kind: 'nbd',
    nbd: {
      uri,
      ...certificates(target, uri.startsWith('nbds:')),
      ...checkIntegers(target, LIMITS),
    },
    ...toNativePresentation(target),
  };
}

/** The folder, without which no connection uses TLS, and which a connection without TLS has no use for. */
function certificates({ tlsCertificates }: NbdTarget, tls: boolean): Partial<NativeNbd> {
  if (tlsCertificates === undefined) {
    if (!tls) return {};
    throw wrong('tlsCertificates', 'is missing, and nbds:// needs certificates', FOLDER);
  }
  if (tls) return { tlsCertificates: checkAbsolutePath(tlsCertificates, 'tlsCertificates') };
  throw wrong('tlsCertificates', 'has no meaning without TLS', 'nbds:// uses TLS');
}

/** The addon reads the whole address; here the scheme is checked, so that a mistake shows at once. */
function checkUri(uri: unknown): string {
  if (typeof uri !== 'string') throw wrong('uri', 'must be a text or a URL', FORMS);
  if (uri.startsWith('nbds+unix:')) {
    const hint = 'use nbds:// over TCP, or nbd+unix://, which never leaves this machine';
    throw wrong('uri', `is ${uri}, and the kernel has TLS for TCP only`, hint);
  }
  if (/^nbds?:\/\/[^/?#]|^nbd\+unix:\/\/\/[^?#]*\?socket=\//.test(uri)) return uri;
  throw wrong('uri', `is ${JSON.stringify(uri)}, which is no address of an NBD export`, FORMS);
}
