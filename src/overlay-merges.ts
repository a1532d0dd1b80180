import { checkAbsolutePath, checkBoolean } from './check.ts';
import { native } from './native.ts';
import { checkTaskOptions, runTask, type OverlayTaskOptions } from './overlay-task.ts';
import { toNativeTarget, type Target } from './targets/index.ts';

/** The file of {@link exportOverlay}, in bytes. */
export interface OverlayExport {
  /** The size of the disk. */
  readonly size: number;
  /** What is written; everything else is holes. */
  readonly written: number;
}

/** The layers below a layer after {@link flattenOverlay}, {@link commitOverlay} or {@link Device.flatten}. */
export interface OverlayMerged {
  /** Files of merged layers that are still there, the highest first. The disk does not need these. */
  readonly kept: readonly string[];
  /** Files of merged layers that were removed, the highest first. */
  readonly removed: readonly string[];
}

/** Options of {@link exportOverlay}. */
export interface ExportOptions extends OverlayTaskOptions {
  /** Whether a file at `out` is replaced. @default false */
  readonly replace?: boolean | undefined;
}

/** Options of {@link flattenOverlay}. */
export interface FlattenOptions extends OverlayTaskOptions {
  /** Whether merged layers on which no other layer stands are removed. @default false */
  readonly prune?: boolean | undefined;
}

/** Options of {@link commitOverlay}. */
export interface CommitOptions extends OverlayTaskOptions {
  /**
   * The base of the layer, a raw file or block device, to be written to. The layer stands on this base
   * directly, and no other layer does.
   * @default the layer below
   */
  readonly intoBase?: string | URL | undefined;
}

/**
 * Writes the whole disk of a layer, frozen or live, to a raw sparse file. Blocks of zeros become holes.
 * `out` appears once it is whole, with a rename: a killed or cancelled export leaves nothing. An image for
 * `targets.overlay()` or any other program is such a raw file, so there is no import.
 *
 * @example
 * await exportOverlay(targets.file('debian.img'), 'vm1.layer', 'vm1.img');
 *
 * @param base The base of the layer, which is only read.
 * @param path The file of the layer.
 * @param out The file to make, on a file system with `O_TMPFILE` (ext4, xfs, btrfs, tmpfs).
 * @throws {UblkError} `ERR_UBLK_BUSY` while the disk is served; `ERR_UBLK_BAD_BACKEND` where `out` exists,
 * for another base than that of the layer, and where the last server has not closed the layer;
 * `ERR_UBLK_INVALID_ARGUMENT` where `out` is a file of the disk; `ERR_UBLK_NO_BACKEND` where a layer is
 * missing.
 */
export async function exportOverlay(
  base: Target,
  path: string | URL,
  out: string | URL,
  options: ExportOptions = {},
): Promise<OverlayExport> {
  checkTaskOptions(options, 'exportOverlay', ['replace']);
  const below = toNativeTarget(base);
  const layer = checkAbsolutePath(path, 'path');
  const file = checkAbsolutePath(out, 'out');
  const replace = checkBoolean(options.replace ?? false, 'replace');
  return await runTask(options, (task) =>
    native().overlayExport(below, layer, file, replace, task),
  );
}

/**
 * Merges all layers of a disk without a server into one on the same base. The merged layer takes the place
 * of `path` with a rename, and has the same UUID. At any moment the disk has the same contents, whatever
 * fails. A frozen layer stays frozen, and the layers that stand on it stay valid.
 *
 * @example
 * const { kept } = await flattenOverlay('vm1.layer', { prune: true });
 *
 * @param path The file of the layer.
 * @throws {UblkError} `ERR_UBLK_BUSY` while a server has the layer, or a layer above;
 * `ERR_UBLK_BAD_BACKEND` where the last server has not closed the layer; `ERR_UBLK_NO_BACKEND` where a
 * layer is missing.
 */
export async function flattenOverlay(
  path: string | URL,
  options: FlattenOptions = {},
): Promise<OverlayMerged> {
  checkTaskOptions(options, 'flattenOverlay', ['prune']);
  const layer = checkAbsolutePath(path, 'path');
  const prune = checkBoolean(options.prune ?? false, 'prune');
  return await runTask(options, (task) => native().overlayFlatten(layer, prune, task));
}

/**
 * Merges a layer of a disk without a server and the layer below into one, at `path`, and removes the layer
 * below. At any moment the disk has the same contents. A commit killed after the rename leaves the layer
 * below, which no layer needs.
 *
 * With `intoBase`, writes the layer's blocks into the base, and empties the layer. At any moment the disk
 * has the same contents. After a kill or an abort the disk can be served and not forked; another commit
 * does the rest.
 *
 * @example
 * await commitOverlay('vm1.layer');
 * await commitOverlay('golden.layer', { intoBase: 'debian.img' });
 *
 * @param path The file of the layer.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` where other layers stand on the layer below, or on the
 * base (the message names those in the folders of the layer and of the base); where the layer stands on its
 * base, or with `intoBase` on another layer; `ERR_UBLK_BUSY` while a server has the layer, a layer above,
 * or with `intoBase` the base; `ERR_UBLK_BAD_BACKEND` where the last server has not closed the layer, and
 * for another base than that of the layer.
 */
export async function commitOverlay(
  path: string | URL,
  options: CommitOptions = {},
): Promise<OverlayMerged> {
  checkTaskOptions(options, 'commitOverlay', ['intoBase']);
  const layer = checkAbsolutePath(path, 'path');
  const { intoBase } = options;
  if (intoBase === undefined) {
    return await runTask(options, (task) => native().overlayCommit(layer, task));
  }
  const base = checkAbsolutePath(intoBase, 'intoBase');
  await runTask(options, (task) => native().overlayCommitIntoBase(base, layer, task));
  return { kept: [], removed: [] };
}
