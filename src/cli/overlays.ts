import type { Command } from 'commander';

import { example, PART, wholeNumber } from './arguments.ts';
import type { CreateFlags, ForkFlags, OverlayFlags } from './commands/overlay.ts';
import type { OutputFlags } from './output.ts';
import { compareOverlays } from './overlay-changes.ts';
import { surveyOverlays } from './overlay-folders.ts';
import { mergeOverlays } from './overlay-merges.ts';

const BASE = `${PART}; ublk only reads the base`;
const LAYER = 'the file of the layer, of a disk that nobody serves';
const BLOCK =
  'logical block size of the disk: 512, 1024, 2048 or 4096 (default: 4096; 512 on qcow2 images)';
const HISTORY = 'a folder on a tmpfs, for what a killed server must not lose';

/** `ublk add overlay` */
export function addOverlays(add: Command, options: (command: Command) => Command): void {
  options(add.command('overlay'))
    .description('Serve a disk that stores only its differences from a base.')
    .argument('<base>', BASE)
    .argument('<layer>', 'the file that stores the differences')
    .option('--create', 'make that file if it is missing')
    .option('--block-size <bytes>', BLOCK, wholeNumber)
    .option('--frozen', 'serve a frozen layer, for reading only')
    .option('--history <folder>', `${HISTORY} (default: /run/ublk or /dev/shm)`)
    .option('--lose-unflushed', "serve without a killed server's unflushed writes if they are lost")
    .option(
      '--merge-depth <n>',
      'merge frozen layers when there are more than so many',
      wholeNumber,
    )
    .option(
      '--merge-garbage <percent>',
      'merge them when that gives back more than this share',
      wholeNumber,
    )
    .option('--merge-prune', 'remove merged layers, snapshots too, on which no layer stands')
    .addHelpText('after', example('ublk add overlay debian.img vm1.layer --create'))
    .action(async (base: string, layer: string, flags: OverlayFlags) => {
      await (await import('./commands/overlay.ts')).addOverlay(base, layer, flags);
    });
}

/** `ublk overlay`: what is done with disks that are not served. */
export function lookAfterOverlays(program: Command): void {
  const overlay = program
    .command('overlay')
    .description(
      'Make, fork, merge, compare and describe disks that store only differences, while no server has them.',
    )
    .addHelpText('after', example('ublk overlay fork golden.layer vm1.layer vm2.layer'));
  overlay
    .command('create')
    .description('Make an empty layer on a base.')
    .argument('<base>', BASE)
    .argument('<layer>', 'the file to make')
    .option('--block-size <bytes>', BLOCK, wholeNumber)
    .option('--json', 'as JSON')
    .addHelpText('after', example('ublk overlay create debian.img golden.layer'))
    .action(async (base: string, layer: string, flags: CreateFlags) => {
      await (await import('./commands/overlay.ts')).create(base, layer, flags);
    });
  forking(overlay, 'snapshot', '<child>')
    .description('Freeze a layer, and make one on it with which the disk goes on.')
    .addHelpText('after', example('ublk overlay snapshot vm1.layer vm1-tuesday.layer'))
    .action(async (layer: string, child: string, flags: ForkFlags) => {
      await (await import('./commands/overlay.ts')).fork(layer, [child], flags);
    });
  forking(overlay, 'fork', '<child...>')
    .description('Freeze a layer, and make layers on it, each a disk with the same contents.')
    .addHelpText('after', example('ublk overlay fork golden.layer vm1.layer vm2.layer'))
    .action(async (layer: string, children: string[], flags: ForkFlags) => {
      await (await import('./commands/overlay.ts')).fork(layer, children, flags);
    });
  overlay
    .command('info')
    .description('Describe a layer and those that it stands on.')
    .argument('<layer>', 'the file of the layer')
    .option('--json', 'as JSON')
    .addHelpText('after', example('ublk overlay info vm1.layer --json'))
    .action(async (layer: string, flags: OutputFlags) => {
      await (await import('./commands/overlay.ts')).info(layer, flags);
    });
  compareOverlays(overlay, BASE, LAYER);
  mergeOverlays(overlay, BASE, LAYER);
  surveyOverlays(overlay, BASE, LAYER);
}

function forking(overlay: Command, name: string, children: string): Command {
  return overlay
    .command(name)
    .argument('<layer>', LAYER)
    .argument(children, 'what to make, in the same folder')
    .option('--history <folder>', 'that of the last server, if it named one')
    .option('--json', 'as JSON');
}
