import { checkAbsolutePath, checkBoolean } from './check.ts';
import { invalid } from './errors.ts';
import { native } from './native.ts';
import { checkTaskOptions, runTask, type OverlayTaskOptions } from './overlay-task.ts';
import { toNativeTarget, type Target } from './targets/index.ts';

/** Options of {@link rebaseOverlay}: either `from` or `unsafe`. */
export interface RebaseOptions extends OverlayTaskOptions {
  /** The present base. Blocks that the new base has otherwise are copied from there into the layer. */
  readonly from?: Target | undefined;
  /**
   * Whether only the layer's note of its base changes: for a base that was copied without its time, or
   * changed where the disk has its own blocks. Nothing checks that the contents stay the same.
   * @default false
   */
  readonly unsafe?: boolean | undefined;
}

/** What {@link rebaseOverlay} has put into the layer, in bytes. */
export interface OverlayRebased {
  /** Copied from the old base. */
  readonly copied: number;
  /** Made zeros, as in the old base. */
  readonly zeros: number;
}

/**
 * Makes another target of the same size the base of a disk without a server. At any moment the disk has the
 * same contents: what differs is copied into the live layer first. Layers below, which other disks may use,
 * are not written to.
 *
 * @example
 * const from = targets.file('debian-12.img');
 * await rebaseOverlay('vm1.layer', targets.qcow2('debian-13.qcow2'), { from });
 *
 * @param path The file of the live layer.
 * @param base The new base.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for a frozen layer, on which others may stand, and without
 * `from` or `unsafe`; `ERR_UBLK_BUSY` while a server has the layer; `ERR_UBLK_BAD_BACKEND` where the last
 * server has not closed the layer, where `from` is not the base of the layer, and for a base of another size.
 */
export async function rebaseOverlay(
  path: string | URL,
  base: Target,
  options: RebaseOptions,
): Promise<OverlayRebased> {
  checkTaskOptions(options, 'rebaseOverlay', ['from', 'unsafe']);
  const layer = checkAbsolutePath(path, 'path');
  const to = toNativeTarget(base);
  const from = options.from && toNativeTarget(options.from);
  if (checkBoolean(options.unsafe ?? false, 'unsafe') === (from !== undefined)) {
    throw invalid(
      from ? 'from and unsafe exclude each other' : 'the present base of the layer is missing',
      'name the present base (from, --from) to keep the contents; unsafe (--unsafe) only changes the name',
    );
  }
  return await runTask(options, (task) => native().overlayRebase(layer, from, to, task));
}
