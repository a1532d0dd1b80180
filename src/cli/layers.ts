import type { Command } from 'commander';

import { example, wholeNumber } from './arguments.ts';
import type { DelayFlags, StripedFlags } from './commands/add-layers.ts';
import type { AddFlags } from './commands/add.ts';

const TARGET = 'a file, a block device, null:SIZE or error:SIZE';

/** The subcommands of `ublk add` whose targets are made of others. */
export function addLayers(add: Command, options: (command: Command) => Command): void {
  options(add.command('striped'))
    .description('Serve chunks laid over several targets in turn.')
    .argument('<target...>', TARGET)
    .option('--chunk <size>', 'what lies on one target before the next has its turn')
    .addHelpText('after', example('ublk add striped a.img b.img --chunk 128KiB'))
    .action(async (parts: string[], flags: StripedFlags) => {
      await (await import('./commands/add-layers.ts')).addStriped(parts, flags);
    });
  options(add.command('linear'))
    .description('Serve several targets one behind another.')
    .argument('<target...>', TARGET)
    .addHelpText('after', example('ublk add linear a.img error:1MiB b.img'))
    .action(async (parts: string[], flags: AddFlags) => {
      await (await import('./commands/add-layers.ts')).addLinear(parts, flags);
    });
  options(add.command('delay'))
    .description('Serve a target that answers late, for tests.')
    .argument('<target>', TARGET)
    .option('--read-us <n>', 'how long reads wait, in microseconds', wholeNumber)
    .option('--write-us <n>', 'how long writes and discards wait', wholeNumber)
    .option('--flush-us <n>', 'how long flushes wait (default: as writes)', wholeNumber)
    .addHelpText('after', example('ublk add delay null:1GiB --read-us 5000'))
    .action(async (part: string, flags: DelayFlags) => {
      await (await import('./commands/add-layers.ts')).addDelay(part, flags);
    });
}
