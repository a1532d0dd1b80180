import { checkBoolean, checkAbsolutePath, checkKeys, checkPath } from '../check.ts';
import { invalid } from '../errors.ts';
import type { NativeTarget } from '../native.ts';
import { parseSize, type Size } from '../size.ts';
import { checkBlock } from './presentation.ts';
import { freezeWithIntegrity, toNativeIntegrity, type FileIntegrityOptions } from './integrity.ts';

/** What {@link targets.file} can be asked for. */
export interface FileTargetOptions {
  /**
   * Whether the file is read and written past the page cache (`O_DIRECT`): `true` insists,
   * `'auto'` does it where the file system can.
   * @default 'auto'
   */
  readonly direct?: boolean | 'auto' | undefined;
  /**
   * Whether the device refuses writes; the file is opened for reading only. A block device that is
   * read-only itself can only be served so.
   * @default false
   */
  readonly readOnly?: boolean | undefined;
  /**
   * Whether the file is locked, so that two servers do not write to it without knowing of each
   * other. Block devices are not locked but opened exclusively.
   * @default true
   */
  readonly lock?: boolean | undefined;
  /**
   * The unit of addressing in bytes: 512, 1024, 2048 or 4096. Where direct I/O on the file needs
   * larger blocks, the file is read and written through the page cache. A device that is recovered
   * keeps the blocks that it was created with.
   * @default what direct I/O on the file needs, else 512
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

/** A regular file or a block device, served as it is. */
export interface FileTarget extends FileTargetOptions {
  readonly kind: 'file';
  /** The path; a relative one counts from the working directory of the moment of creation. */
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
 * discards punch holes. Where somebody cuts a regular file, what lies beyond its end reads as zeros and
 * a write makes it longer; a block device that is pulled, or shrinks, fails what it no longer holds
 * with `EIO`.
 *
 * @example
 * await using device = await createDevice({
 *   target: targets.file('/srv/disk.img', { readOnly: true }),
 * });
 *
 * @param path A path, or the URL of a file.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`. Whether the file is there is seen by
 * `createDevice`.
 */
export function fileTarget(path: string | URL, options: FileTargetOptions = {}): FileTarget {
  checkKeys(options, 'targets.file()', KEYS);
  const target: FileTarget = { ...options, kind: 'file', path: checkPath(path, 'path') };
  toNativeFile(target);
  return freezeWithIntegrity(target);
}

/** Checks a file target and puts it as the addon takes it. */
export function toNativeFile(target: FileTarget): NativeTarget {
  checkKeys(target, 'a file target', ['kind', 'path', ...KEYS]);
  const direct = DIRECT.get(target.direct);
  if (direct === undefined) {
    throw invalid(`direct is ${String(target.direct)}; it must be true, false or 'auto'`);
  }
  const { readOnly, lock, logicalBlockSize, size, integrity } = target;
  return {
    kind: 'file',
    path: checkAbsolutePath(target.path, 'path'),
    direct,
    readOnly: readOnly === undefined ? false : checkBoolean(readOnly, 'readOnly'),
    ...(lock === undefined ? {} : { lock: checkBoolean(lock, 'lock') }),
    ...(logicalBlockSize === undefined ? {} : { logicalBlockSize: checkBlock(logicalBlockSize) }),
    ...(size === undefined ? {} : { size: parseSize(size) }),
    ...(integrity === undefined ? {} : { integrity: toNativeIntegrity(integrity, true) }),
  };
}
