import type { Command } from 'commander';

import { cpuList, example, wholeNumber, wholeNumbers } from './arguments.ts';
import type { DeleteFlags } from './commands/delete.ts';
import type { ResizeFlags } from './commands/resize.ts';
import type { ShareFlags } from './commands/share.ts';
import type { StopFlags } from './commands/stop.ts';
import type { OutputFlags } from './output.ts';

/** The subcommands that change a device of any server. */
export function changeDevices(program: Command): void {
  ofDevice(program, 'stop')
    .description('Stop a device without users; the server ends.')
    .option('--force', 'stop a device in use: its users see errors afterwards')
    .addHelpText('after', example('ublk stop 0'))
    .action(async (id: number, flags: StopFlags) => {
      await (await import('./commands/stop.ts')).stop(id, flags);
    });
  program
    .command('delete')
    .description('Stop and remove devices without users, also devices without a server.')
    .argument('[id...]', 'the numbers N of /dev/ublkbN', wholeNumbers)
    .option('--all', 'all devices visible to this user')
    .option('--force', 'also devices in use: their users see errors afterwards')
    .option('--json', 'as JSON')
    .addHelpText('after', example('ublk delete 0', 'ublk delete --all'))
    .action(async (ids: readonly number[] | undefined, flags: DeleteFlags) => {
      await (await import('./commands/delete.ts')).remove(ids ?? [], flags);
    });
  ofDevice(program, 'quiesce')
    .description('Take a device with recovery away from the server, which ends; requests wait.')
    .addHelpText('after', example('ublk quiesce 0'))
    .action(async (id: number, flags: OutputFlags) => {
      await (await import('./commands/quiesce.ts')).quiesce(id, flags);
    });
  ofDevice(program, 'resize')
    .description('Change the size of a served device.')
    .argument('<size>', 'new size, for example 2GiB')
    .option('--force', 'grow without a check of the size of the backing store')
    .addHelpText('after', example('ublk resize 0 2GiB --force'))
    .action(async (id: number, size: string, flags: ResizeFlags) => {
      await (await import('./commands/resize.ts')).resize(id, size, flags);
    });
  ofDevice(program, 'share')
    .description('Let clients share memory with a device served by ublk add --buffers shared,…')
    .argument('<file>', 'of a tmpfs or hugetlbfs, or /proc/PID/fd/N of a memfd')
    .option('--read-only', 'for writes only: the server must not change the memory')
    .addHelpText('after', example('ublk share 0 /dev/hugepages/clients'))
    .action(async (id: number, file: string, flags: ShareFlags) => {
      await (await import('./commands/share.ts')).share(id, file, flags);
    });
  ofDevice(program, 'unshare')
    .description('Unregister memory registered by ublk share.')
    .argument('<index>', 'index printed by ublk share', wholeNumber)
    .addHelpText('after', example('ublk unshare 0 0'))
    .action(async (id: number, index: number, flags: OutputFlags) => {
      await (await import('./commands/share.ts')).unshare(id, index, flags);
    });
  ofDevice(program, 'set-affinity')
    .description('Move all threads of a device, except threads of a pool, to the given CPUs.')
    .argument('<cpus>', 'for example 0,2-3', cpuList)
    .addHelpText('after', example('ublk set-affinity 0 2-3'))
    .action(async (id: number, cpus: number[], flags: OutputFlags) => {
      await (await import('./commands/set-affinity.ts')).setAffinity(id, cpus, flags);
    });
}

function ofDevice(program: Command, name: string): Command {
  return program
    .command(name)
    .argument('<id>', 'the number N of /dev/ublkbN', wholeNumber)
    .option('--json', 'as JSON');
}
