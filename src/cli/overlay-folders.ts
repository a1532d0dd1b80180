import type { Command } from 'commander';

import { example } from './arguments.ts';
import type { CheckFlags } from './commands/overlay-folders.ts';
import type { OutputFlags } from './output.ts';

/** `ublk overlay tree` and `check`. */
export function surveyOverlays(overlay: Command, base: string, layer: string): void {
  overlay
    .command('tree')
    .description('Show the layers in a folder: who stands on whom, and who serves what.')
    .argument('[folder]', 'the folder', '.')
    .option('--json', 'as JSON')
    .addHelpText('after', example('ublk overlay tree /var/lib/disks'))
    .action(async (folder: string, flags: OutputFlags) => {
      await (await import('./commands/overlay-folders.ts')).tree(folder, flags);
    });
  overlay
    .command('check')
    .description(
      'Check the files of a disk. The exit status is 0 for a sound disk, 4 for one with problems.',
    )
    .argument('<layer>', layer)
    .option('--base <base>', `check the base, too: ${base}`)
    .option('--repair', 'give unused space back to the file system')
    .option('--json', 'as JSON')
    .addHelpText('after', example('ublk overlay check vm1.layer --base debian.img --repair'))
    .action(async (path: string, flags: CheckFlags) => {
      await (await import('./commands/overlay-folders.ts')).check(path, flags);
    });
}
