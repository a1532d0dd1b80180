import type { Command } from 'commander';

import { example } from './arguments.ts';
import type {
  CommitFlags,
  ExportFlags,
  FlattenFlags,
  RebaseFlags,
} from './commands/overlay-merges.ts';

/** `ublk overlay export`, `flatten`, `commit` and `rebase`. */
export function mergeOverlays(overlay: Command, base: string, layer: string): void {
  overlay
    .command('export')
    .description('Write the whole disk of a layer to a raw sparse file.')
    .argument('<base>', base)
    .argument('<layer>', layer)
    .argument('<out>', 'the file to make')
    .option('--force', 'replace that file if it exists')
    .option('--json', 'as JSON')
    .addHelpText('after', example('ublk overlay export debian.img vm1.layer vm1.img'))
    .action(async (below: string, path: string, out: string, flags: ExportFlags) => {
      await (await import('./commands/overlay-merges.ts')).exportDisk(below, path, out, flags);
    });
  overlay
    .command('flatten')
    .description('Merge all layers of a disk into one, on the same base.')
    .argument('<layer>', layer)
    .option('--prune', 'remove the layers below on which no other layer stands')
    .option('--json', 'as JSON')
    .addHelpText('after', example('ublk overlay flatten vm1.layer --prune'))
    .action(async (path: string, flags: FlattenFlags) => {
      await (await import('./commands/overlay-merges.ts')).flatten(path, flags);
    });
  overlay
    .command('commit')
    .description('Merge a layer and the layer below, or write a layer into its base.')
    .argument('<layer>', layer)
    .option('--into-base <base>', 'the raw file or block device to write to; the layer is emptied')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      example(
        'ublk overlay commit vm1.layer',
        'ublk overlay commit golden.layer --into-base a.img',
      ),
    )
    .action(async (path: string, flags: CommitFlags) => {
      await (await import('./commands/overlay-merges.ts')).commit(path, flags);
    });
  overlay
    .command('rebase')
    .description('Put a disk on another base, with the same contents.')
    .argument('<layer>', layer)
    .requiredOption('--base <base>', `the new base: ${base}`)
    .option('--from <base>', 'the present base; what differs is copied from there into the layer')
    .option('--unsafe', 'copy nothing, and only note the new base')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      example(
        'ublk overlay rebase vm1.layer --from debian-12.img --base debian-13.img',
        'ublk overlay rebase vm1.layer --unsafe --base moved/debian-12.img',
      ),
    )
    .action(async (path: string, flags: RebaseFlags) => {
      await (await import('./commands/overlay-merges.ts')).rebase(path, flags);
    });
}
