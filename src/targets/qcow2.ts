import { checkAbsolutePath, checkBoolean, checkKeys, checkPath } from '../check.ts';
import type { NativeTarget } from '../native.ts';
import { toNativeDirect } from './file.ts';
import { checkBlock } from './presentation.ts';

/** Options of {@link targets.qcow2}. */
export interface Qcow2TargetOptions {
  /**
   * Whether the server reads past the page cache (`O_DIRECT`): `true` insists, `'auto'` uses direct I/O
   * where the file system supports direct I/O.
   * @default 'auto'
   */
  readonly direct?: boolean | 'auto' | undefined;
  /**
   * Whether the server locks the images for reading, for QEMU, qemu-img and other servers of ublk. Without
   * locks, no program may write to the images.
   * @default true
   */
  readonly lock?: boolean | undefined;
  /**
   * The unit of addressing in bytes: 512, 1024, 2048 or 4096.
   * @default the alignment of direct I/O on the files, else 512
   */
  readonly logicalBlockSize?: number | undefined;
}

/** A qcow2 image with its backing files. */
export interface Qcow2Target extends Qcow2TargetOptions {
  readonly kind: 'qcow2';
  readonly path: string;
}

const KEYS = ['direct', 'lock', 'logicalBlockSize'];

/**
 * A target that serves a qcow2 image with the backing files below (qcow2, at the bottom qcow2 or raw), for
 * reading only: {@link targets.overlay} takes writes. The server reads the tables of all images when the
 * device is created; a read then costs the same whatever the depth. Versions 2 and 3, all cluster sizes and
 * extended L2 entries are read. Each image must declare the format of its backing file, since a raw disk can
 * hold anything.
 *
 * @example
 * await using device = await createDevice({
 *   target: targets.overlay(targets.qcow2('debian.qcow2'), 'vm1.layer', { create: true }),
 * });
 *
 * Creating the device fails with `ERR_UBLK_BAD_BACKEND` for images that are damaged, marked as dirty or
 * corrupt, compressed, encrypted, or have a data file beside the image; with `ERR_UBLK_NO_BACKEND` where a
 * backing file is missing; with `ERR_UBLK_BUSY` while a program writes to an image.
 *
 * @param path A path, or the URL of a file.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function qcow2Target(path: string | URL, options: Qcow2TargetOptions = {}): Qcow2Target {
  checkKeys(options, 'targets.qcow2()', KEYS);
  const target: Qcow2Target = { ...options, kind: 'qcow2', path: checkPath(path, 'path') };
  toNativeQcow2(target);
  return Object.freeze(target);
}

/** Checks a qcow2 target and converts the target for the addon. */
export function toNativeQcow2(target: Qcow2Target): NativeTarget {
  checkKeys(target, 'a qcow2 target', ['kind', 'path', ...KEYS]);
  const { path, direct, lock, logicalBlockSize } = target;
  return {
    kind: 'qcow2',
    path: checkAbsolutePath(path, 'path'),
    direct: toNativeDirect(direct),
    ...(lock === undefined ? {} : { lock: checkBoolean(lock, 'lock') }),
    ...(logicalBlockSize === undefined ? {} : { logicalBlockSize: checkBlock(logicalBlockSize) }),
  };
}
