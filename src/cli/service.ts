import type { Command } from 'commander';

import { example } from './arguments.ts';
import type { InstallFlags } from './commands/install.ts';
import type * as Verbs from './commands/service.ts';
import type {
  ServiceFlags,
  ServiceFlattenFlags,
  ServiceSnapshotFlags,
  ServiceStopFlags,
} from './commands/service.ts';

/** The subcommands that speak to a running `ublk serve`, by its control socket, or make it a service. */
export function lookAfterService(program: Command): void {
  const service = program
    .command('service')
    .description('Look after a running ublk serve: its devices, its configuration, its events.')
    .addHelpText('after', example('ublk service status', 'ublk service reload'));
  verb(service, 'status')
    .description('Show the service and its devices.')
    .addHelpText('after', example('ublk service status --json'))
    .action(async (flags: ServiceFlags) => (await verbs()).status(flags));
  verb(service, 'reload')
    .description('Read the configuration again, and wait until each device is as declared.')
    .option('--dry-run', 'change nothing, and say what would be done')
    .addHelpText('after', example('ublk service reload --dry-run', 'ublk service reload'))
    .action(async (flags: ServiceFlags & { dryRun?: true }) => (await verbs()).reload(flags));
  verb(service, 'events')
    .description('Print the events of the service as they come, one line of JSON each.')
    .addHelpText('after', example('ublk service events | jq .event'))
    .action(async (flags: ServiceFlags) => (await verbs()).events(flags));
  ofDevice(service, 'stop')
    .description('Stop a device without users; the next reload makes it again.')
    .option('--force', 'stop a device in use: its users see errors afterwards')
    .addHelpText('after', example('ublk service stop data'))
    .action(async (name: string, flags: ServiceStopFlags) => (await verbs()).stop(name, flags));
  ofDevice(service, 'resize')
    .description('Change the size of a device; the service checks the backing store.')
    .argument('<size>', 'new size, for example 2GiB')
    .addHelpText('after', example('ublk service resize data 2GiB'))
    .action(async (name: string, size: string, flags: ServiceFlags) => {
      await (await verbs()).resize(name, size, flags);
    });
  ofDevice(service, 'throttle')
    .description('Limit the requests and bytes per second of a device; without limits, lift them.')
    .argument('[limit...]', 'for example iops=1000, write.bytesPerSecond=20MiB, burst=0.5')
    .addHelpText('after', example('ublk service throttle data read.iops=500 burst=1'))
    .action(async (name: string, limits: string[], flags: ServiceFlags) => {
      await (await verbs()).throttle(name, limits, flags);
    });
  ofDevice(service, 'snapshot')
    .description("Freeze what an overlay's disk holds, while clients use the disk.")
    .option('--path <file>', 'the file of the snapshot (default: LAYER.GENERATION)')
    .addHelpText('after', example('ublk service snapshot vm1'))
    .action(async (name: string, flags: ServiceSnapshotFlags) => {
      await (await verbs()).snapshot(name, [], flags);
    });
  ofDevice(service, 'fork')
    .description("Fork an overlay's disk while clients use the disk.")
    .argument('<child...>', "new files, in the folder of the disk's file")
    .option('--path <file>', 'the file of the snapshot below both (default: LAYER.GENERATION)')
    .addHelpText('after', example('ublk service fork vm1 /disks/vm2.layer /disks/vm3.layer'))
    .action(async (name: string, children: string[], flags: ServiceSnapshotFlags) => {
      await (await verbs()).snapshot(name, children, flags);
    });
  ofDevice(service, 'flatten')
    .description("Merge the frozen layers below an overlay's disk, while clients use the disk.")
    .option('--prune', 'remove merged layers on which no other layer stands')
    .option('--bytes-per-second <size>', 'the most to copy per second (default: 64MiB)')
    .addHelpText('after', example('ublk service flatten vm1 --prune'))
    .action(async (name: string, flags: ServiceFlattenFlags) => {
      await (await verbs()).flatten(name, flags);
    });
  ofDevice(service, 'quiesce')
    .description('Leave a device with recovery to another server; requests wait.')
    .addHelpText('after', example('ublk service quiesce data'))
    .action(async (name: string, flags: ServiceFlags) => (await verbs()).quiesce(name, flags));
  installService(service, program.version() ?? '');
}

/** The subcommands that make a service of systemd. */
function installService(service: Command, version: string): void {
  unit(service, 'install')
    .description('Write a unit of systemd that serves a configuration, and udev rules for names.')
    .argument('<config>', 'ublk.toml, ublk.json, or a module')
    .option('--upgrade-on-reload', 'let systemctl reload start a new server (ublk upgrade)')
    .addHelpText('after', example('ublk service install /etc/ublk.toml --dry-run'))
    .action(async (config: string, flags: InstallFlags) => {
      await (await import('./commands/install.ts')).install(config, flags, version);
    });
  unit(service, 'uninstall')
    .description('Remove the unit of systemd; the udev rules stay.')
    .addHelpText('after', example('ublk service uninstall'))
    .action(async (flags: InstallFlags) => {
      (await import('./commands/install.ts')).uninstall(flags);
    });
}

function unit(service: Command, name: string): Command {
  return service
    .command(name)
    .option(
      '--name <name>',
      'a unit ublk-NAME.service with a socket of its own (default: ublk.service)',
    )
    .option('--prefix <dir>', 'the folder that stands for / (default: /)')
    .option('--dry-run', 'write nothing, and print what would be written');
}

async function verbs(): Promise<typeof Verbs> {
  return await import('./commands/service.ts');
}

function verb(service: Command, name: string): Command {
  return service
    .command(name)
    .option('--socket <path>', 'the control socket (default: /run/ublk-service.sock)')
    .option('--json', 'as JSON');
}

function ofDevice(service: Command, name: string): Command {
  return verb(service, name).argument('<name>', 'the name of the device in the configuration');
}
