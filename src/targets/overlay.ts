import { checkAbsolutePath, checkBoolean, checkKeys } from '../check.ts';
import { wrong } from '../errors.ts';
import type { NativeTarget } from '../native.ts';
import type { Target } from './index.ts';
import { checkTarget } from './layer.ts';
import { checkBlock } from './presentation.ts';

/** Options of {@link targets.overlay}. */
export interface OverlayTargetOptions {
  /**
   * Whether to make a missing layer, empty. An existing file is never replaced.
   * @default false
   */
  readonly create?: boolean | undefined;
  /**
   * Whether to serve the disk of a frozen layer, for reading only: nothing is written, and other servers may read
   * the layer, too. An overlay that is the base of another one, or lies below that, is always opened so.
   * @default false
   */
  readonly readOnly?: boolean | undefined;
  /**
   * The unit of addressing in bytes: 512, 1024, 2048 or 4096. It belongs to the disk: the option counts where `create`
   * makes the layer, and a layer of a disk with other blocks is refused.
   * @default that of the layer; for a new layer, see {@link CreateOverlayOptions.logicalBlockSize}
   */
  readonly logicalBlockSize?: number | undefined;
  /**
   * A folder on a tmpfs. Until the next flush, the server keeps the places of written blocks there,
   * so a killed server loses no answered write: at most 1 MiB for each disk. The next server of the
   * disk must name the same folder.
   * @default `/run/ublk` for root, where `/run` is a tmpfs; otherwise `/dev/shm`
   */
  readonly history?: string | URL | undefined;
  /**
   * Whether to serve the disk although the last server was killed and `history` lacks the places of
   * that server's unflushed writes. These answered writes are lost then, as by a power cut. Without
   * this option such a disk is refused until the machine has rebooted. Meant for one start: records
   * of devices leave the option out.
   * @default false
   */
  readonly loseUnflushed?: boolean | undefined;
}

/** A disk that stores only its differences from a base. */
export interface OverlayTarget extends OverlayTargetOptions {
  readonly kind: 'overlay';
  readonly base: Target;
  readonly path: string | URL;
}

const KEYS = ['create', 'readOnly', 'logicalBlockSize', 'history', 'loseUnflushed'];

/**
 * A disk that stores only its differences from a base (copy-on-write), in blocks of 4 KiB. The base
 * is opened for reading only, and many disks can share the base. The differences lie in a layer, a
 * file on any file system with fallocate (ext4, xfs, btrfs, tmpfs). `forkOverlay()` freezes a layer
 * and makes new layers on top, up to 255 on each other; the files of a disk's layers lie in one
 * folder.
 *
 * The first write of a block is appended to the layer, and later writes go in place. Discards and
 * writes of zeros never let the base show through, and give space back with a later flush. When the
 * file system is full, writes of new blocks fail with `ENOSPC`, and no earlier write is lost.
 *
 * A base cannot be a handler, a zoned target, a target with integrity, or an overlay with a live layer; such an
 * overlay cannot lie below stripes, a linear target or a handler either. A frozen layer, opened for reading only,
 * can be and lie there: so disks in other folders stand on the layer. The size of the base is a multiple of
 * 4 KiB.
 *
 * The device has logical blocks of 4 KiB, or smaller ones (`logicalBlockSize`). The first write of a part of a 4 KiB
 * block reads the block from below, and stores all of it.
 *
 * @example
 * await using device = await createDevice({
 *   target: targets.overlay(targets.file('debian.img'), 'vm1.layer', { create: true }),
 * });
 *
 * Creating the device fails with `ERR_UBLK_NO_BACKEND` where the layer or a layer below is missing;
 * with `ERR_UBLK_BAD_BACKEND` where a layer is damaged or frozen, where the base has another size
 * or was modified since the layer was made, and where the last server was killed and `history`
 * lacks the answered and unflushed writes of that server; with `ERR_UBLK_BUSY` where another server
 * has the layer; with `ERR_UBLK_UNSUPPORTED` on a file system without fallocate, or without a
 * tmpfs.
 *
 * @param base A target, for example `targets.file('debian.img')`.
 * @param path The file of the live layer.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function overlayTarget(
  base: Target,
  path: string | URL,
  options: OverlayTargetOptions = {},
): OverlayTarget {
  checkKeys(options, 'targets.overlay()', KEYS);
  const below = checkTarget(base, 'base');
  const target: OverlayTarget = Object.freeze({ ...options, kind: 'overlay', base: below, path });
  toNativeOverlay(target, []);
  return target;
}

/** Checks an overlay and converts the overlay for the addon, over the converted base. */
export function toNativeOverlay(
  target: OverlayTarget,
  base: readonly NativeTarget[],
): NativeTarget {
  checkKeys(target, 'an overlay target', ['kind', 'base', 'path', ...KEYS]);
  const { path, create = false, readOnly = false, history, loseUnflushed = false } = target;
  const { logicalBlockSize: block } = target;
  if (checkBoolean(readOnly, 'readOnly')) checkReadOnly(target);
  return {
    kind: 'overlay',
    path: checkAbsolutePath(path, 'path'),
    targets: base,
    ...(checkBoolean(create, 'create') ? { create } : {}),
    ...(readOnly ? { readOnly } : {}),
    ...(block === undefined ? {} : { logicalBlockSize: checkBlock(block) }),
    ...(checkBoolean(loseUnflushed, 'loseUnflushed') ? { loseUnflushed } : {}),
    ...(history === undefined ? {} : { history: checkAbsolutePath(history, 'history') }),
  };
}

/** A frozen layer is neither made nor written to. */
function checkReadOnly(target: OverlayTarget): void {
  for (const key of ['create', 'history', 'loseUnflushed'] as const) {
    if (target[key] === undefined || target[key] === false) continue;
    throw wrong(key, 'goes with a live layer, and readOnly with a frozen one');
  }
}
