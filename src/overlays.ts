import { checkAbsolutePath, checkChildren, checkKeys } from './check.ts';
import { unwrap } from './errors.ts';
import { native } from './native.ts';
import { toNativeTarget, type Target } from './targets/index.ts';
import { checkBlock } from './targets/presentation.ts';

/** The contents of an overlay's layer, from its file; sizes in bytes. */
export interface OverlayLayer {
  /** The file, absolute. */
  readonly path: string;
  /** The UUID of the layer. */
  readonly layer: string;
  /** The number of superblocks written so far: a larger number is a later state of the file. */
  readonly generation: number;
  /** Whether other layers may stand on this layer. A frozen layer is never written to. */
  readonly frozen: boolean;
  /**
   * Whether the last server has closed the layer. The file of another layer may lack answered writes, and
   * so may a copy of the file: serve the layer again and end that server before copying.
   */
  readonly closed: boolean;
  /** The size of the disk. */
  readonly size: number;
  /** The unit of the disk's requests: 512, 1024, 2048 or 4096. */
  readonly logicalBlockSize: number;
  /** Bytes of the disk that the layer stores, zeros not counted. */
  readonly stored: number;
  /** Bytes of the disk that read as zeros by this layer. */
  readonly zeros: number;
  /** The number of runs of blocks that the layer stores. */
  readonly extents: number;
  /** Bytes of the file system that the file takes. */
  readonly allocated: number;
}

/** The contents of an overlay's disk at one moment, in a layer that nobody writes to any more. */
export interface OverlaySnapshot {
  /** The file of the layer, absolute: {@link forkOverlay} makes disks of it. */
  readonly path: string;
  /** The UUID of the layer. */
  readonly layer: string;
  /**
   * The number of superblocks written to the disk so far: later snapshots of the same disk have larger
   * numbers. A virtual machine monitor can store the number beside a snapshot of the memory.
   */
  readonly generation: number;
}

/** Options of {@link Device.snapshot} and {@link Device.fork}. */
export interface SnapshotOptions {
  /**
   * The file of the snapshot, in the folder of the disk's file.
   * @default the name of the disk's file, a dot, and the generation: `vm1.layer.7`
   */
  readonly path?: string | URL | undefined;
}

/** A range of a disk that a layer stores or makes zeros; the bytes below may be the same. In bytes. */
export interface OverlayChange {
  /** The first byte, a multiple of 4096. */
  readonly offset: number;
  /** The number of bytes, a multiple of 4096. */
  readonly length: number;
  /** Whether the range reads as zeros and takes no space in a layer. */
  readonly zeros: boolean;
}

/** Options of {@link overlayDiff}. */
export interface DiffOptions {
  /** The file of a layer below, for the changes since that layer was frozen. @default the base */
  readonly from?: string | URL | undefined;
}

/** Options of {@link forkOverlay}. */
export interface ForkOptions {
  /**
   * The `history` of the disk's last server, if the user named a folder.
   * @default `/run/ublk` for root, where `/run` is a tmpfs, and `/dev/shm` elsewhere
   */
  readonly history?: string | URL | undefined;
}

/** Options of {@link createOverlay}. */
export interface CreateOverlayOptions {
  /**
   * The unit of the disk's requests in bytes: 512, 1024, 2048 or 4096. Partition tables and some file systems count in
   * these blocks: 512 for the image of a disk with such blocks. A layer keeps the number, and so do forks. The base
   * must have the same logical blocks, or smaller ones.
   * @default the `logicalBlockSize` of the base where the base has this option; that of the disk where the base is a
   * qcow2 image (512) or a frozen layer; otherwise 4096
   */
  readonly logicalBlockSize?: number | undefined;
}

/**
 * Makes an empty layer for {@link targets.overlay}.
 *
 * @param base The target whose differences the layer stores.
 * @param path The new file.
 * @returns The UUID of the layer.
 * @throws {UblkError} `ERR_UBLK_BAD_BACKEND` where `path` exists;
 * `ERR_UBLK_UNSUPPORTED` on a file system without fallocate; `ERR_UBLK_INVALID_ARGUMENT` for an
 * unsuitable base; and the errors of opening the base.
 */
export async function createOverlay(
  base: Target,
  path: string | URL,
  options: CreateOverlayOptions = {},
): Promise<string> {
  checkKeys(options, 'the options of createOverlay()', ['logicalBlockSize']);
  const file = checkAbsolutePath(path, 'path');
  const { logicalBlockSize: block } = options;
  if (block !== undefined) checkBlock(block);
  return unwrap(await native().createOverlay(toNativeTarget(base), file, block));
}

/**
 * Forks a disk without a server: freezes the live layer, and makes empty layers on the live layer, each a
 * disk that begins with the same contents. A frozen layer is forked without a change of the layer. ublk
 * copies nothing. An interrupted fork has made all, some or none of the children; another fork makes the
 * others.
 *
 * @example
 * await forkOverlay('golden.layer', ['vm1.layer', 'vm2.layer']);
 *
 * @param path The file of the live layer, which is never written to from now on.
 * @param children The new files, in the folder of `path`.
 * @throws {UblkError} `ERR_UBLK_BUSY` while the disk is served; `ERR_UBLK_BAD_BACKEND` where a child
 * exists, where `path` is no layer, and where the last server was killed and `history` does not hold what
 * that server had answered and not flushed; `ERR_UBLK_INVALID_ARGUMENT` for a child in another folder;
 * `ERR_UBLK_NO_BACKEND` where the layer is missing.
 */
export async function forkOverlay(
  path: string | URL,
  children: readonly (string | URL)[],
  options: ForkOptions = {},
): Promise<void> {
  checkKeys(options, 'the options of forkOverlay()', ['history']);
  const { history } = options;
  const files = checkChildren(children);
  const folder = history === undefined ? undefined : checkAbsolutePath(history, 'history');
  unwrap(await native().forkOverlay(checkAbsolutePath(path, 'path'), files, folder));
}

/**
 * Describes the layers of a disk without a server: the layer at `path` first, then the layers below.
 * Unflushed writes of a killed server are not counted.
 *
 * @throws {UblkError} `ERR_UBLK_BUSY` while the disk is served; `ERR_UBLK_NO_BACKEND` where a layer is
 * missing; `ERR_UBLK_BAD_BACKEND` where a file is no layer, or is damaged.
 */
export async function overlayInfo(path: string | URL): Promise<OverlayLayer[]> {
  return unwrap(await native().overlayInfo(checkAbsolutePath(path, 'path')));
}

/**
 * Lists the ranges in which a disk without a server differs from its base, or from a layer below: all
 * that a backup since then has to copy. In order, without overlaps.
 *
 * @example
 * await forkOverlay('monday.layer', ['vm1.layer']); // then serve vm1.layer until Tuesday
 * const changes = await overlayDiff('vm1.layer', { from: 'monday.layer' });
 *
 * @throws {UblkError} `ERR_UBLK_BUSY` while the disk is served; `ERR_UBLK_BAD_BACKEND` where the last
 * server has not closed the layer, and where a file is no layer, or is damaged;
 * `ERR_UBLK_INVALID_ARGUMENT` where `from` is no layer below; `ERR_UBLK_NO_BACKEND` where a layer is
 * missing.
 */
export async function overlayDiff(
  path: string | URL,
  options: DiffOptions = {},
): Promise<OverlayChange[]> {
  checkKeys(options, 'the options of overlayDiff()', ['from']);
  const { from } = options;
  const below = from === undefined ? undefined : checkAbsolutePath(from, 'from');
  return unwrap(await native().overlayDiff(checkAbsolutePath(path, 'path'), below));
}
