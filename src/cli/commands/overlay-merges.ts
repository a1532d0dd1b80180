import {
  commitOverlay,
  exportOverlay,
  flattenOverlay,
  type OverlayMerged,
} from '../../overlay-merges.ts';
import { rebaseOverlay } from '../../overlay-rebase.ts';
import { formatSize } from '../../size.ts';
import { answer, type OutputFlags } from '../output.ts';
import { withProgress } from '../progress.ts';
import { parseTarget } from './add-layers.ts';

/** The flags of `ublk overlay export`. */
export interface ExportFlags extends OutputFlags {
  readonly force?: true;
}

/** The flags of `ublk overlay flatten`. */
export interface FlattenFlags extends OutputFlags {
  readonly prune?: true;
}

/** The flags of `ublk overlay commit`. */
export interface CommitFlags extends OutputFlags {
  readonly intoBase?: string;
}

/** The flags of `ublk overlay rebase`. */
export interface RebaseFlags extends OutputFlags {
  readonly base: string;
  readonly from?: string;
  readonly unsafe?: true;
}

/** `ublk overlay export BASE LAYER OUT` */
export async function exportDisk(
  base: string,
  path: string,
  out: string,
  { force, ...flags }: ExportFlags,
): Promise<void> {
  const below = parseTarget(base, { readOnly: true });
  const made = await withProgress('the export', (options) =>
    exportOverlay(below, path, out, { replace: force, ...options }),
  );
  const text = () => `${out}: ${formatSize(made.size)}, ${formatSize(made.written)} written`;
  await answer(flags, { path: out, ...made }, text);
}

/** `ublk overlay flatten LAYER` */
export async function flatten(path: string, { prune, ...flags }: FlattenFlags): Promise<void> {
  const merged = await withProgress('the merge', (options) =>
    flattenOverlay(path, { prune, ...options }),
  );
  await answer(flags, { path, ...merged }, () => describe(path, merged));
}

/** `ublk overlay commit LAYER` */
export async function commit(path: string, { intoBase, ...flags }: CommitFlags): Promise<void> {
  const merged = await withProgress('the commit', (options) =>
    commitOverlay(path, { intoBase, ...options }),
  );
  await answer(flags, { path, ...merged }, () => describe(path, merged));
}

/** `ublk overlay rebase LAYER` */
export async function rebase(path: string, flags: RebaseFlags): Promise<void> {
  const { base, from, unsafe, ...output } = flags;
  const open = (text: string) => parseTarget(text, { readOnly: true });
  const below = from === undefined ? undefined : open(from);
  const done = await withProgress('the rebase', (options) =>
    rebaseOverlay(path, open(base), { from: below, unsafe, ...options }),
  );
  const text = () =>
    `${path} on ${base}: ${formatSize(done.copied)} copied, ${formatSize(done.zeros)} made zeros`;
  await answer(output, { path, base, ...done }, text);
}

/** The layer, and what has become of the layers below. */
function describe(path: string, { kept, removed }: OverlayMerged): string {
  const lines = [
    ...removed.map((layer) => `removed ${layer}`),
    ...kept.map((layer) => `kept ${layer}, which ${path} no longer needs`),
  ];
  return [path, ...lines].join('\n');
}
