import { basename } from 'node:path';

import {
  overlayCheck,
  overlayTree,
  type OverlayBranch,
  type OverlayReport,
  type OverlayRoot,
} from '../../overlay-folders.ts';
import { formatSize } from '../../size.ts';
import { answer, paint, type OutputFlags } from '../output.ts';
import { withProgress } from '../progress.ts';
import { ExitStatus } from '../report.ts';
import { parseTarget } from './add-layers.ts';

/** The flags of `ublk overlay check`. */
export interface CheckFlags extends OutputFlags {
  readonly base?: string;
  readonly repair?: true;
}

/** `ublk overlay tree` */
export async function tree(folder: string, flags: OutputFlags): Promise<void> {
  const roots = await overlayTree(folder);
  const text = () => (roots.length > 0 ? roots.map(draw).join('\n') : 'no layers');
  await answer(flags, roots, text);
}

function draw({ base, layerMissing, children }: OverlayRoot): string {
  const missing = layerMissing ? 'a layer that is not here' : 'a base that is not here';
  const name = base === undefined ? paint('yellow', missing) : basename(base);
  return [name, ...branches(children, '')].join('\n');
}

/** The lines of layers, with lines that connect these. */
function branches(layers: readonly OverlayBranch[], before: string): string[] {
  return layers.flatMap((layer, at) => {
    const last = at === layers.length - 1;
    const line = `${before}${last ? '└─ ' : '├─ '}${describe(layer)}`;
    return [line, ...branches(layer.children, `${before}${last ? '   ' : '│  '}`)];
  });
}

function describe({ path, frozen, closed, allocated, server, device }: OverlayBranch): string {
  const user = device ?? (server !== undefined && `process ${server}`);
  const state = frozen ? 'frozen' : user ? `served: ${user}` : closed ? 'live' : 'not closed';
  return `${basename(path)}  ${formatSize(allocated)}  ${paint('dim', state)}`;
}

/** `ublk overlay check LAYER` */
export async function check(path: string, { base, repair, ...flags }: CheckFlags): Promise<void> {
  const below = base === undefined ? undefined : parseTarget(base, { readOnly: true });
  const report = await withProgress('the check', (options) =>
    overlayCheck(path, { base: below, repair, ...options }),
  );
  if (report.problems.length > 0) process.exitCode = ExitStatus.Unsound;
  await answer(flags, report, () => tell(report));
}

function tell({ layers, problems, unused, reclaimed }: OverlayReport): string {
  const space = [
    ...(reclaimed > 0 ? [`${formatSize(reclaimed)} given back`] : []),
    `${formatSize(unused)} unused`,
  ].join(', ');
  const found = problems.map((problem) => `${problem.path}: ${problem.message}`);
  const summary = problems.length === 0 ? 'no problems' : `problems: ${problems.length}`;
  return [...found, `layers checked: ${layers.length}; ${summary}; ${space}`].join('\n');
}
