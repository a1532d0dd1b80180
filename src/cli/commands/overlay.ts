import { createOverlay, forkOverlay, overlayInfo } from '../../overlays.ts';
import { formatSize } from '../../size.ts';
import { targets } from '../../targets/index.ts';
import { answer, table, type OutputFlags } from '../output.ts';
import { parseTarget } from './add-layers.ts';
import { serve, type AddFlags } from './add.ts';

/** The flags of `ublk add overlay`. */
export interface OverlayFlags extends AddFlags {
  readonly create?: true;
  readonly frozen?: true;
  readonly history?: string;
  readonly loseUnflushed?: true;
}

/** The flags of `ublk overlay fork`. */
export interface ForkFlags extends OutputFlags {
  readonly history?: string;
}

/** `ublk add overlay BASE LAYER` */
export async function addOverlay(base: string, layer: string, flags: OverlayFlags): Promise<void> {
  const { create, frozen: readOnly, history, loseUnflushed } = flags;
  const below = parseTarget(base, { readOnly: true });
  const target = targets.overlay(below, layer, { create, readOnly, history, loseUnflushed });
  await serve(target, `${layer} on ${base}`, flags);
}

/** `ublk overlay create BASE LAYER` */
export async function create(base: string, path: string, flags: OutputFlags): Promise<void> {
  const layer = await createOverlay(parseTarget(base, { readOnly: true }), path);
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
    ({ path: file, frozen, closed, stored, zeros, extents, allocated, layer }) => [
      file,
      frozen ? 'frozen' : closed ? 'live' : 'not closed',
      formatSize(stored),
      formatSize(zeros),
      String(extents),
      formatSize(allocated),
      layer,
    ],
  );
  const head = ['layer', 'state', 'stored', 'zeros', 'extents', 'takes', 'uuid'];
  await answer(flags, layers, () => table(rows, head));
}
