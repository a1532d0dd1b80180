import type { Command } from 'commander';

import { example } from './arguments.ts';
import type { ApplyFlags, DiffFlags } from './commands/overlay-changes.ts';

/** `ublk overlay diff` and `apply`. */
export function compareOverlays(overlay: Command, base: string, layer: string): void {
  overlay
    .command('diff')
    .description('List the ranges in which a disk differs from its base, or from a layer below.')
    .argument('<layer>', layer)
    .option('--from <layer>', 'a layer below, as `ublk overlay info` names it (default: the base)')
    .option('--stream', 'write the changes themselves to stdout, for `ublk overlay apply`')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      example(
        'ublk overlay diff vm1.layer --from monday.layer --json',
        'ublk overlay diff tuesday.layer --from monday.layer --stream > tuesday.changes',
      ),
    )
    .action(async (path: string, flags: DiffFlags) => {
      await (await import('./commands/overlay-changes.ts')).diff(path, flags);
    });
  overlay
    .command('apply')
    .description('Make a layer of the changes that `ublk overlay diff --stream` has written.')
    .argument('<changes>', 'the file with the changes; - for stdin')
    .requiredOption('--to <layer>', 'the file to make, in the folder of the layers below')
    .option('--base <base>', `for changes since the base: ${base}`)
    .option('--json', 'as JSON')
    .addHelpText('after', example('ublk overlay apply tuesday.changes --to backup/tuesday.layer'))
    .action(async (changes: string, flags: ApplyFlags) => {
      await (await import('./commands/overlay-changes.ts')).apply(changes, flags);
    });
}
