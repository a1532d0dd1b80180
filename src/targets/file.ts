import { checkBoolean, checkAbsolutePath, checkKeys, checkPath } from '../check.ts';
import { wrong } from '../errors.ts';
import type { NativeTarget } from '../native.ts';
import { parseSize, type Size } from '../size.ts';
import { checkBlock } from './presentation.ts';
import { freezeWithIntegrity, toNativeIntegrity, type FileIntegrityOptions } from './integrity.ts';

/** Options of {@link targets.file}. */
export interface FileTargetOptions {
  /**
   * Whether the server reads and writes past the page cache (`O_DIRECT`): `true` insists, `'auto'`
   * uses direct I/O where the file system supports direct I/O.
   * @default 'auto'
   */
  readonly direct?: boolean | 'auto' | undefined;
  /**
   * Whether the device refuses writes; the server opens the file for reading only. A read-only
   * backing block device needs this option.
   * @default false
   */
  readonly readOnly?: boolean | undefined;
  /**
   * Whether the server locks the file, so that two servers never write to the same file. The server
   * opens block devices exclusively instead.
   * @default true
   */
  readonly lock?: boolean | undefined;
  /**
   * The unit of addressing in bytes: 512, 1024, 2048 or 4096. Where direct I/O on the file needs
   * larger blocks, the server uses the page cache. A recovered device keeps its block size.
   * @default the alignment of direct I/O on the file, else 512
   */
  readonly logicalBlockSize?: number | undefined;
  /**
   * The size of the device, at most the file's.
   * @default the file's size
   */
  readonly size?: Size | undefined;
  /**
   * Metadata beside the data, such as protection information (Linux 7.0).
   * @default none
   */
  readonly integrity?: FileIntegrityOptions | undefined;
}

/** A regular file or a block device. */
export interface FileTarget extends FileTargetOptions {
  readonly kind: 'file';
  /** The path; a relative path starts from the working directory at the time of creation. */
  readonly path: string;
}

const KEYS = ['direct', 'readOnly', 'lock', 'logicalBlockSize', 'size', 'integrity'];
const DIRECT = new Map<unknown, 'auto' | 'yes' | 'no'>([
  [undefined, 'auto'],
  ['auto', 'auto'],
  [true, 'yes'],
  [false, 'no'],
]);

/**
 * A target that serves a regular file or a block device, byte for byte. Flushes reach the disk,
 * discards punch holes. A regular file cut by another program reads as zeros beyond its end, and a
 * write there extends the file. A backing block device fails requests with `EIO` when the device is
 * removed, and beyond the end when the device shrinks.
 *
 * @example
 * await using device = await createDevice({
 *   target: targets.file('/srv/disk.img', { readOnly: true }),
 * });
 *
 * @param path A path, or the URL of a file.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`. `createDevice` opens the file and reports a missing
 * file.
 */
export function fileTarget(path: string | URL, options: FileTargetOptions = {}): FileTarget {
  checkKeys(options, 'targets.file()', KEYS);
  const target: FileTarget = { ...options, kind: 'file', path: checkPath(path, 'path') };
  toNativeFile(target);
  return freezeWithIntegrity(target);
}

/** Checks a file target and converts the target for the addon. */
export function toNativeFile(target: FileTarget): NativeTarget {
  checkKeys(target, 'a file target', ['kind', 'path', ...KEYS]);
  const { readOnly, lock, logicalBlockSize, size, integrity } = target;
  return {
    kind: 'file',
    path: checkAbsolutePath(target.path, 'path'),
    direct: toNativeDirect(target.direct),
    readOnly: readOnly === undefined ? false : checkBoolean(readOnly, 'readOnly'),
    ...(lock === undefined ? {} : { lock: checkBoolean(lock, 'lock') }),
    ...(logicalBlockSize === undefined ? {} : { logicalBlockSize: checkBlock(logicalBlockSize) }),
    ...(size === undefined ? {} : { size: parseSize(size) }),
    ...(integrity === undefined ? {} : { integrity: toNativeIntegrity(integrity, true) }),
  };
}

/** Checks and converts the option `direct`. */
export function toNativeDirect(value: unknown): 'auto' | 'yes' | 'no' {
  const direct = DIRECT.get(value);
  if (direct !== undefined) return direct;
  throw wrong('direct', `is ${String(value)}; it must be true, false or 'auto'`);
}
