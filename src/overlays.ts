import { checkAbsolutePath, checkKeys } from './check.ts';
import { invalid, unwrap } from './errors.ts';
import { native } from './native.ts';
import { toNativeTarget, type Target } from './targets/index.ts';

/** What the file of an overlay's layer says; sizes in bytes. */
export interface OverlayLayer {
  /** The file, absolute. */
  readonly path: string;
  /** The UUID of the layer. */
  readonly layer: string;
  /** Counts the superblocks that were written: a larger number is a later state of the file. */
  readonly generation: number;
  /** Whether other layers may stand on it. A frozen layer is never written to. */
  readonly frozen: boolean;
  /**
   * Whether the last server has closed the layer. A layer that is not closed may lack answered writes, and
   * so does a copy of the file: serve the layer again and end that server before copying.
   */
  readonly closed: boolean;
  /** The size of the disk. */
  readonly size: number;
  /** How much of the disk the layer stores, zeros not counted. */
  readonly stored: number;
  /** How much of the disk reads as zeros by this layer. */
  readonly zeros: number;
  /** The number of runs of blocks that the layer stores. */
  readonly extents: number;
  /** How much the file takes of its file system. */
  readonly allocated: number;
}

/** How {@link forkOverlay} forks. */
export interface ForkOptions {
  /**
   * The `history` of the disk's last server, if that server named one.
   * @default `/run/ublk` for root, where `/run` is a tmpfs, and `/dev/shm` elsewhere
   */
  readonly history?: string | URL | undefined;
}

/**
 * Makes an empty layer, to be served with {@link targets.overlay}.
 *
 * @param base What the disk stores its differences from.
 * @param path The file to make.
 * @returns The UUID of the layer.
 * @throws {UblkError} `ERR_UBLK_BAD_BACKEND` where there is something at `path`;
 * `ERR_UBLK_UNSUPPORTED` on a file system without fallocate; `ERR_UBLK_INVALID_ARGUMENT` for a base
 * that cannot be one; and what opening the base throws.
 */
export async function createOverlay(base: Target, path: string | URL): Promise<string> {
  const file = checkAbsolutePath(path, 'path');
  return unwrap(await native().createOverlay(toNativeTarget(base), file));
}

/**
 * Forks a disk that is not served: freezes its live layer, and makes empty layers on it, each of which is
 * a disk that begins with the same contents. A layer that is frozen already is forked as it is. Nothing
 * is copied. A fork that is interrupted has made all, some or none of the children, and can be done again
 * for the others.
 *
 * @example
 * await forkOverlay('golden.layer', ['vm1.layer', 'vm2.layer']);
 *
 * @param path The file of the live layer; from now on it is never written to.
 * @param children The files to make, in the folder of `path`.
 * @throws {UblkError} `ERR_UBLK_BUSY` while the disk is served; `ERR_UBLK_BAD_BACKEND` where a child
 * exists, where `path` is no layer, and where the last server was killed and `history` does not hold what
 * that server had answered and not flushed; `ERR_UBLK_INVALID_ARGUMENT` for a child in another folder;
 * `ERR_UBLK_NO_BACKEND` where there is no such layer.
 */
export async function forkOverlay(
  path: string | URL,
  children: readonly (string | URL)[],
  options: ForkOptions = {},
): Promise<void> {
  checkKeys(options, 'the options of forkOverlay()', ['history']);
  const { history } = options;
  if (!Array.isArray(children) || children.length === 0) {
    throw invalid('children must be an array of paths, at least one');
  }
  const files = children.map((child, at) => checkAbsolutePath(child, `children[${at}]`));
  const folder = history === undefined ? undefined : checkAbsolutePath(history, 'history');
  unwrap(await native().forkOverlay(checkAbsolutePath(path, 'path'), files, folder));
}

/**
 * Describes the layers of a disk that is not served: the one at `path` first, then those that it stands
 * on. What a killed server has not flushed is not counted.
 *
 * @throws {UblkError} `ERR_UBLK_BUSY` while the disk is served; `ERR_UBLK_NO_BACKEND` where a layer is
 * missing; `ERR_UBLK_BAD_BACKEND` where a file is no layer, or is damaged.
 */
export async function overlayInfo(path: string | URL): Promise<OverlayLayer[]> {
  return unwrap(await native().overlayInfo(checkAbsolutePath(path, 'path')));
}
