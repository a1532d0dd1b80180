import { createOverlay, forkOverlay, overlayInfo } from '../../overlays.ts';
import { formatSize } from '../../size.ts';
import { targets } from '../../targets/index.ts';
import { answer, table, type OutputFlags } from '../output.ts';
import { parseTarget } from './add-layers.ts';
import { serve, type AddFlags } from './add.ts';

/** The flags of `ublk add overlay`. */
export interface OverlayFlags extends AddFlags {
  readonly create?: true;
  readonly blockSize?: number;
  readonly frozen?: true;
  readonly history?: string;
  readonly loseUnflushed?: true;
}

/** The flags of `ublk overlay create`. */
export interface CreateFlags extends OutputFlags {
  readonly blockSize?: number;
}

/** The flags of `ublk overlay fork`. */
export interface ForkFlags extends OutputFlags {
  readonly history?: string;
}

/** `ublk add overlay BASE LAYER` */
export async function addOverlay(base: string, layer: string, flags: OverlayFlags): Promise<void> {
  const { create, frozen: readOnly, blockSize: logicalBlockSize, history, loseUnflushed } = flags;
  const below = parseTarget(base, { readOnly: true });
  const options = { create, readOnly, logicalBlockSize, history, loseUnflushed };
  const target = targets.overlay(below, layer, options);
  await serve(target, `${layer} on ${base}`, flags);
}

/** `ublk overlay create BASE LAYER` */
export async function create(
  base: string,
  path: string,
  { blockSize: logicalBlockSize, ...flags }: CreateFlags,
): Promise<void> {
  const below = parseTarget(base, { readOnly: true });
  const layer = await createOverlay(below, path, { logicalBlockSize });
  await answer(flags, { path, layer }, () => path);
}

/** `ublk overlay fork LAYER CHILD...` */
export async function fork(
  path: string,
  children: readonly string[],
  { history, ...flags }: ForkFlags,
): Promise<void> {
  await forkOverlay(path, children, { history });
  await answer(flags, { path, children }, () => children.join('\n'));
}

/** `ublk overlay info LAYER` */
export async function info(path: string, flags: OutputFlags): Promise<void> {
  const layers = await overlayInfo(path);
  const rows = layers.map(
    ({
      path: file,
      frozen,
      closed,
      logicalBlockSize,
      stored,
      zeros,
      extents,
      allocated,
      layer,
    }) => [
      file,
      frozen ? 'frozen' : closed ? 'live' : 'not closed',
      String(logicalBlockSize),
      formatSize(stored),
      formatSize(zeros),
      String(extents),
      formatSize(allocated),
      layer,
    ],
  );
  const head = ['layer', 'state', 'block', 'stored', 'zeros', 'extents', 'takes', 'uuid'];
  await answer(flags, layers, () => table(rows, head));
}
