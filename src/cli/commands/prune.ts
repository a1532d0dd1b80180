import { prune as pruneAll, type Pruned } from '../../orphans.ts';
import { answer, type OutputFlags } from '../output.ts';

/** The flags of `ublk prune`. */
export interface PruneFlags extends OutputFlags {
  readonly dryRun?: true;
}

/** `ublk prune` */
export async function prune(flags: PruneFlags): Promise<void> {
  const pruned = await pruneAll({ dryRun: flags.dryRun });
  await answer(flags, pruned, () => inWords(pruned, flags.dryRun ? 'would remove' : 'removed'));
}

function inWords({ devices, records, kept }: Pruned, verb: string): string {
  const lines = [
    ...devices.map((id) => `${verb} device ${id}`),
    ...records.map((path) => `${verb} the record ${path}, whose device is gone`),
    ...kept.map(({ path, why }) => `kept: ${why.startsWith(path) ? why : `${path} ${why}`}`),
  ];
  return lines.join('\n') || 'nothing is left behind';
}
