import { checkAbsolutePath, checkBoolean, checkIntegers, checkKeys } from '../check.ts';
import { wrong } from '../errors.ts';
import type { NativeRbd, NativeTarget } from '../native.ts';
import {
  PRESENTATION_KEYS,
  toNativePresentation,
  type PresentationOptions,
} from './presentation.ts';

/** Options of {@link targets.rbd}. */
export interface RbdTargetOptions extends PresentationOptions {
  /**
   * The pool of the image.
   * @default 'rbd'
   */
  readonly pool?: string | undefined;
  /**
   * The namespace of the pool.
   * @default the default namespace, which has no name
   */
  readonly namespace?: string | undefined;
  /** The name of a snapshot; the device refuses writes. */
  readonly snapshot?: string | undefined;
  /**
   * The Ceph user, without `client.`.
   * @default 'admin'
   */
  readonly user?: string | undefined;
  /**
   * The name of the cluster, part of the names of Ceph's files: `/etc/ceph/CLUSTER.conf`.
   * @default 'ceph'
   */
  readonly cluster?: string | undefined;
  /**
   * The path of Ceph's configuration, which names the monitors.
   * @default where Ceph looks, `/etc/ceph/ceph.conf` first
   */
  readonly conf?: string | URL | undefined;
  /**
   * The path of the file with the user's key.
   * @default as Ceph's configuration says, `/etc/ceph/ceph.client.USER.keyring` first
   */
  readonly keyring?: string | URL | undefined;
  /**
   * Whether to keep the exclusive lock of the image, so that no other client writes. With `false`, librbd
   * takes the lock for a write and hands the lock over to any client that asks. An image without the
   * feature `exclusive-lock` has no lock. Devices that refuse writes take none.
   * @default true
   */
  readonly lock?: boolean | undefined;
  /**
   * How long opening may take, in milliseconds from 1 to 600000: the monitors, the image, and the exclusive
   * lock. The lock of a client that was killed is free after 30 s.
   * @default 60000
   */
  readonly connectTimeoutMs?: number | undefined;
  /**
   * How long a request waits for the cluster before the request fails, in milliseconds from 1000 to
   * 86400000, rounded up to whole seconds (Ceph's `rados_osd_op_timeout`).
   * @default as Ceph's configuration says; 300000 where it sets no limit
   */
  readonly requestTimeoutMs?: number | undefined;
}

/** An image of Ceph RBD. */
export interface RbdTarget extends RbdTargetOptions {
  readonly kind: 'rbd';
  readonly image: string;
}

const NAMES = ['pool', 'namespace', 'snapshot', 'user', 'cluster'] as const;
const PATHS = ['conf', 'keyring'] as const;
/** The least and the largest value of each limit. */
const LIMITS = {
  connectTimeoutMs: [1, 600_000],
  requestTimeoutMs: [1000, 86_400_000],
} as const;
const KEYS = [...NAMES, ...PATHS, 'lock', ...Object.keys(LIMITS), ...PRESENTATION_KEYS];

/**
 * A target on an image of Ceph RBD, through Ceph's own library librbd, which ublk loads when the first such
 * target is opened (package `librbd1`). A flush and a write with FUA reach the OSDs; discards and zeros are
 * the image's. The device's requests are copied (buffers `copy`).
 *
 * @example
 * await using device = await createDevice({
 *   target: targets.rbd('vm1', { pool: 'vms', user: 'ublk' }),
 * });
 *
 * Creating the device fails with `ERR_UBLK_UNSUPPORTED` without librbd; with `ERR_UBLK_NO_BACKEND` where the
 * configuration, the key, the pool, the image or the snapshot is missing; with `ERR_UBLK_PERMISSION` where the
 * cluster refuses the user; with `ERR_UBLK_BUSY` while another client keeps the exclusive lock; with
 * `ERR_UBLK_TIMEOUT` where the cluster does not answer.
 *
 * @param image The name of the image; pool, namespace and snapshot are options.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function rbdTarget(image: string, options: RbdTargetOptions = {}): RbdTarget {
  checkKeys(options, 'targets.rbd()', KEYS);
  const target: RbdTarget = Object.freeze({ ...options, kind: 'rbd', image });
  toNativeRbd(target);
  return target;
}

/** Checks an RBD target and converts the target for the addon. */
export function toNativeRbd(target: RbdTarget): NativeTarget {
  checkKeys(target, 'an RBD target', ['kind', 'image', ...KEYS]);
  const { image, lock } = target;
  const given = NAMES.flatMap((key) => pair(key, target[key], checkImagePart));
  const paths = PATHS.flatMap((key) => pair(key, target[key], checkAbsolutePath));
  const rbd: NativeRbd = {
    pool: 'rbd',
    ...Object.fromEntries([...given, ...paths]),
    image: checkImagePart(image, 'image'),
    ...(lock === undefined ? {} : { lock: checkBoolean(lock, 'lock') }),
    ...checkIntegers(target, LIMITS),
  };
  return { kind: 'rbd', rbd, ...toNativePresentation(target) };
}

/** An image as `rbd` names it: `POOL/NAMESPACE/IMAGE@SNAPSHOT`; absent parts have no separator. */
export function formatImage({ image, pool, namespace, snapshot }: NativeRbd): string {
  const place = [pool, ...(namespace === undefined ? [] : [namespace]), image].join('/');
  return `rbd:${place}${snapshot === undefined ? '' : `@${snapshot}`}`;
}

/**
 * The parts of an image's name as `rbd` takes the name: `[POOL/[NAMESPACE/]]IMAGE[@SNAPSHOT]`.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function parseImage(
  text: string,
): Pick<RbdTarget, 'image' | 'pool' | 'namespace' | 'snapshot'> {
  const parts = /^(?:([^/@]+)\/)?(?:([^/@]+)\/)?([^/@]+)(?:@([^/@]+))?$/.exec(text);
  if (!parts) throw wrong('image', `is ${JSON.stringify(text)}, which names no image`, FORM);
  const [, pool, namespace, image = '', snapshot] = parts;
  return { pool, namespace, image, snapshot };
}

const FORM = 'the form is [POOL/[NAMESPACE/]]IMAGE[@SNAPSHOT]';

function pair<T>(
  key: string,
  value: unknown,
  check: (value: unknown, key: string) => T,
): [string, T][] {
  return value === undefined ? [] : [[key, check(value, key)]];
}

/** Ceph's names have no `/` and no `@`, which separate names. */
function checkImagePart(value: unknown, key: string): string {
  if (typeof value === 'string' && /^[^/@\0]+$/.test(value)) return value;
  const shown = typeof value === 'string' ? JSON.stringify(value) : String(value);
  const hint = key === 'image' ? 'pool, namespace and snapshot are options' : undefined;
  throw wrong(key, `is ${shown}; it must be a name without '/' and '@'`, hint);
}
