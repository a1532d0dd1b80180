import { Argument, Command, Option } from 'commander';

import { BUFFER_MODES, type ExchangeMode, type Recovery } from '../info.ts';
import { packageVersion } from '../version.ts';
import { bufferModes, collect, cpuList, example, seconds, wholeNumber } from './arguments.ts';
import type { Shell } from './commands/completion.ts';
import type { AddFlags, FileFlags, NullFlags } from './commands/add.ts';
import type { MetricsFlags } from './commands/metrics.ts';
import type { TopFlags } from './commands/top.ts';
import type { PruneFlags } from './commands/prune.ts';
import type { RecoverAllFlags } from './commands/recover.ts';
import type { UpgradeFlags } from './commands/upgrade.ts';
import { integrityOptions } from './integrity.ts';
import { SORTS } from './top/view.ts';
import { addLayers } from './layers.ts';
import { changeDevices } from './lifecycle.ts';
import type { OutputFlags } from './output.ts';
import type { ServeFlags } from './run-service.ts';
import { lookAfterService } from './service.ts';
import { addOverlays, lookAfterOverlays } from './overlays.ts';

const EXCHANGES: readonly ExchangeMode[] = ['per-io', 'batch'];
const RECOVERIES: readonly Recovery[] = ['queue', 'reissue', 'fail'];
const STOP_AFTER =
  'wait no longer for users at the end (default: 60 with recovery, no limit without)';
const SHELLS: readonly Shell[] = ['bash', 'zsh', 'fish'];

/**
 * The `ublk` command. Each subcommand imports its modules when the subcommand runs, so that help is
 * quick.
 *
 * @param quiet Whether commander prints no errors about the words; the caller then prints the errors.
 */
export function createProgram(quiet = false): Command {
  const program = new Command('ublk')
    .configureOutput(quiet ? { writeErr: () => {} } : {})
    .description('Serve Linux block devices from user space, and look after them.')
    .version(packageVersion())
    .enablePositionalOptions()
    .exitOverride()
    .addHelpText('after', example('ublk doctor', 'ublk add file disk.img', 'ublk stop 0'));
  addCommands(program);
  exportCommand(program);
  serveCommand(program);
  upgradeCommand(program);
  lookAfterService(program);
  recoverCommand(program);
  describeDevices(program);
  changeDevices(program);
  lookAfterOverlays(program);
  describeMachine(program);
  serveUdev(program);
  printCompletion(program);
  return program;
}

function addCommands(program: Command): void {
  const add = program
    .command('add')
    .description('Create a device and serve it, until a signal or ublk stop.')
    .addHelpText('after', example('ublk add file disk.img', 'ublk add null --size 1GiB'));
  addTargets(add, deviceOptions);
}

function exportCommand(program: Command): void {
  const exported = program
    .command('export')
    .description('Serve a target to clients of NBD, without a block device and without root.')
    .addHelpText(
      'after',
      example(
        'ublk export file disk.img --socket /run/disk.sock',
        'ublk export overlay debian.img vm1.layer --port 10809 --read-only',
      ),
    );
  addTargets(exported, exportOptions);
  // Some targets have the option already, and then open their files without permission to write.
  for (const command of exported.commands) {
    if (command.options.some(({ long }) => long === '--read-only')) continue;
    command.optionsGroup('Export options:').option('--read-only', 'refuse writes');
  }
}

function serveCommand(program: Command): void {
  program
    .command('serve')
    .description('Serve the devices of a configuration until a signal; SIGHUP reads it again.')
    .argument(
      '<config>',
      'ublk.toml, ublk.json, or a module whose default export is the configuration',
    )
    .option('--dry-run', 'do nothing, and say what would be done')
    .option('--stop-after <seconds>', STOP_AFTER, wholeNumber)
    .option('--stall-after <seconds>', 'report a device without completions (default: 30)', seconds)
    .option('--control <socket>', 'path of the control socket (default: /run/ublk-service.sock)')
    .option('--no-control', 'no control socket')
    .option('--control-group <group>', 'a group that may use the control socket, too')
    .option('--metrics <address>', 'answer scrapes of Prometheus there: 9760, 127.0.0.1:9760')
    .option('--background', 'go on in the background when the devices are ready')
    .option('--pid-file <file>', 'write the process id there when the devices are ready')
    .option('--json', 'describe the devices as one line of JSON when they are ready')
    .addHelpText('after', example('ublk serve /etc/ublk.toml', 'ublk serve ublk.js --dry-run'))
    .action(async (path: string, flags: ServeFlags) => {
      await (await import('./commands/serve.ts')).serve(path, flags);
    });
}

function upgradeCommand(program: Command): void {
  program
    .command('upgrade')
    .description('Take over the devices of a running ublk serve: with this Node.js and this ublk.')
    .argument('[config]', 'the configuration from now on (default: that of the running service)')
    .option('--dry-run', 'change nothing, and say whether each device can be taken over')
    .option('--socket <path>', 'its control socket (default: /run/ublk-service.sock)')
    .option('--background', 'go on in the background when the devices are taken over')
    .option('--pid-file <file>', 'write the process id there (default: as the running service)')
    .option('--json', 'describe the devices as one line of JSON when they are taken over')
    .addHelpText('after', example('ublk upgrade --dry-run', 'ublk upgrade --background'))
    .action(async (path: string | undefined, flags: UpgradeFlags) => {
      await (await import('./commands/upgrade.ts')).upgrade(path, flags);
    });
}

/** The target has its own options, so that the words are parsed as the subcommands of `add`. */
function recoverCommand(program: Command): void {
  program
    .command('recover')
    .description('Serve a device that its server has left, or all such devices.')
    .argument('[id]', 'the number N of /dev/ublkbN', wholeNumber)
    .argument('[target...]', 'the target, in the words of ublk add (default: as recorded)')
    .option('--all', 'all devices that wait for a server, as recorded')
    .option('--stop-after <seconds>', STOP_AFTER, wholeNumber)
    .option('--background', 'go on in the background when the devices are ready')
    .option('--json', 'one line of JSON for each device')
    .passThroughOptions()
    .addHelpText(
      'after',
      '\nublk recover 0 --help and ublk recover 0 file --help list what may follow.',
    )
    .addHelpText(
      'after',
      example('ublk recover 0', 'ublk recover 0 file disk.img', 'ublk recover --all'),
    )
    .action(async (id: number | undefined, words: string[], flags: RecoverAllFlags) => {
      if (id === undefined || flags.all) {
        await (await import('./commands/recover.ts')).recoverAll(id, flags);
        return;
      }
      const recover = new Command(`ublk recover ${id}`).copyInheritedSettings(program);
      const options = (command: Command): Command =>
        servingOptions(command).setOptionValue('recover', id);
      if (words[0]?.startsWith('-') ?? true) recorded(options(recover));
      else addTargets(recover, options);
      const before = [
        ...(flags.background ? ['--background'] : []),
        ...(flags.json ? ['--json'] : []),
        ...(flags.stopAfter === undefined ? [] : ['--stop-after', String(flags.stopAfter)]),
      ];
      await recover.parseAsync([...words, ...before], { from: 'user' });
    });
}

/** Without the words of a target, the record of the device has the target. */
function recorded(recover: Command): void {
  recover
    .description('Serve a device as its last server did, from the record in /run/ublk.')
    .addHelpText('after', example('ublk recover 0', 'ublk recover 0 --background'))
    .action(async (flags: AddFlags) => {
      await (await import('./commands/recover.ts')).recoverRecorded(flags);
    });
}

/** The subcommands that serve a target, one for each kind. */
function addTargets(parent: Command, options: (command: Command) => Command): void {
  targetOptions(integrityOptions(options(parent.command('file'))))
    .description('Serve a file or a block device; prints the path of the device when it is ready.')
    .argument('<image>', 'the file or block device')
    .option('--read-only', 'refuse writes')
    .option('--direct', 'insist on reading and writing past the page cache')
    .option('--no-direct', 'go through the page cache')
    .option('--no-lock', 'serve it although another server does')
    .option('--block-size <bytes>', 'logical block size: 512, 1024, 2048 or 4096', wholeNumber)
    .option('--size <size>', 'serve only so much of it')
    .optionsGroup('Metadata options:')
    .option('--metadata-file <file>', 'where metadata is kept (default: IMAGE.metadata)')
    .option('--create-metadata', 'make that file although the image is not empty')
    .addHelpText('after', example('ublk add file disk.img --queues 2 --pid-file /run/disk.pid'))
    .action(async (image: string, flags: FileFlags) => {
      await (await import('./commands/add.ts')).addFile(image, flags);
    });
  targetOptions(integrityOptions(options(parent.command('null'))))
    .description('Serve a device that keeps nothing, to see what ublk itself costs.')
    .requiredOption('--size <size>', 'its size, for example 1GiB')
    .option('--read-only', 'refuse writes')
    .option('--block-size <bytes>', 'logical block size: 512, 1024, 2048 or 4096', wholeNumber)
    .addHelpText('after', example('ublk add null --size 1GiB --depth 64'))
    .action(async (flags: NullFlags) => {
      await (await import('./commands/add.ts')).addNull(flags);
    });
  addLayers(parent, (command) => targetOptions(options(command)));
  addOverlays(parent, (command) => targetOptions(options(command)));
}

/** What follows describes the target. */
function targetOptions(command: Command): Command {
  return command.optionsGroup('Target options:');
}

function deviceOptions(command: Command): Command {
  const modes = `how data reaches the server: of ${BUFFER_MODES.join(', ')} (default: the best)`;
  const exchange = new Option(
    '--exchange <mode>',
    'how requests come and go (default: batch if the kernel has it and nothing speaks against it)',
  );
  const recovery = new Option('--recovery <kind>', 'what happens when the server dies');
  return servingOptions(command)
    .optionsGroup('Device options:')
    .option('--name <name>', 'a name for ublk list, kept by later servers')
    .option('--id <n>', 'the number N of /dev/ublkbN (default: the first free one)', wholeNumber)
    .option('--queues <n>', 'hardware queues (default: 1)', wholeNumber)
    .option('--depth <n>', 'requests of a queue in flight at once (default: 128)', wholeNumber)
    .option('--max-io <size>', 'the largest request (default: 1MiB)')
    .option('--buffers <mode,...>', modes, bufferModes)
    .addOption(exchange.choices(EXCHANGES))
    .addOption(recovery.choices(RECOVERIES))
    .option('--no-part-scan', 'let the kernel not look for partitions')
    .option('--unprivileged', 'a device for this user, who is not root')
    .option('--io-desc-size <bytes>', 'distance of request descriptors: 24 to 256', wholeNumber)
    .option('--dma-alignment <size>', 'what memory must be aligned to, up to 4KiB')
    .option('--max-segments <n>', 'most segments of a request', wholeNumber)
    .option('--max-segment-size <size>', 'the longest segment, 4KiB or more')
    .option('--segment-boundary <size>', 'what no segment crosses a multiple of')
    .option('--set <name=value>', "a setting of the device's queue, by its name in sysfs", collect);
}

function exportOptions(command: Command): Command {
  return command
    .setOptionValue('exports', true)
    .optionsGroup('Export options:')
    .option('--socket <path>', 'listen on a Unix socket')
    .option('--port <n>', 'listen on a TCP port; 0: a free one (default: 10809)', wholeNumber)
    .option('--host <address>', 'the address of the port (default: 127.0.0.1)')
    .option('--tls <folder>', 'with ca-cert.pem, server-cert.pem, server-key.pem; none: plain')
    .option('--no-verify-clients', 'with --tls, let clients come without a certificate')
    .option('--name <name>', 'the name of the export; clients may leave the name out')
    .option('--description <text>', 'for people, shown by nbdinfo')
    .option('--connections <n>', 'the most connections at once (default: 16)', wholeNumber)
    .optionsGroup('Server options:')
    .option('--queues <n>', 'threads, which connections take in turn (default: 1)', wholeNumber)
    .option('--depth <n>', 'requests of a thread at once (default: 128)', wholeNumber)
    .option('--max-io <size>', 'longer requests become several (default: 1MiB)')
    .option('--throttle <name=value>', 'a limit: iops=1000, write.bytesPerSecond=20MiB', collect)
    .option('--watchdog <seconds>', 'report requests that have not ended for so long', seconds)
    .option('--spin <usec>', 'look for work so long before sleeping (default: 0)', wholeNumber)
    .option('--affinity <cpus>', 'bind all threads to these CPUs, for example 0,2-3', cpuList)
    .option('--background', 'go on in the background when clients can connect')
    .option('--pid-file <file>', 'write the process id there when clients can connect')
    .option('--json', 'describe the export as one line of JSON when clients can connect');
}

function servingOptions(command: Command): Command {
  const watchdogAction = new Option(
    '--watchdog-action <action>',
    'what is done about such a request besides (default: event, nothing)',
  );
  return command
    .optionsGroup('Server options:')
    .option('--throttle <name=value>', 'a limit: iops=1000, write.bytesPerSecond=20MiB', collect)
    .option('--watchdog <seconds>', 'report requests that have not ended for so long', seconds)
    .addOption(watchdogAction.choices(['event', 'quiesce']))
    .option('--split-register', 'with --buffers register: one system call for each step')
    .option('--share <file>', 'with --buffers shared: memory that clients share', collect)
    .option('--share-read-only <file>', 'the same, for writes only', collect)
    .option('--threads <n>', 'deal the tags of all queues out to so many threads', wholeNumber)
    .option('--latencies', 'measure how long requests take, for ublk metrics and at the end')
    .option('--lock-memory', 'keep everything that the device needs in memory, for swap')
    .option('--rotate-slots', 'take turns at the slots of the buffer table, to find defects')
    .option('--spin <usec>', 'look for work so long before sleeping (default: 0)', wholeNumber)
    .option('--rings-apart', 'fetch and commit in one thread, do the I/O in another')
    .option('--no-pin', "do not bind each queue's threads to its CPUs")
    .option('--affinity <cpus>', 'bind all threads to these instead, for example 0,2-3', cpuList)
    .option('--stop-after <seconds>', STOP_AFTER, wholeNumber)
    .option('--background', 'go on in the background when the device is ready')
    .option('--pid-file <file>', 'write the process id there when the device is ready')
    .option('--json', 'describe the device as one line of JSON when it is ready');
}

function describeDevices(program: Command): void {
  program
    .command('list')
    .description('List the ublk devices of this machine, and what servers have left of others.')
    .option('--json', 'as JSON')
    .addHelpText('after', example("ublk list --json | jq -r '.[].path'"))
    .action(async (flags: OutputFlags) => (await import('./commands/list.ts')).list(flags));
  program
    .command('prune')
    .description('Remove what dead servers have left and nobody can use: devices, records.')
    .option('--dry-run', 'remove nothing, and say what would be removed')
    .option('--json', 'as JSON')
    .addHelpText('after', example('ublk prune --dry-run'))
    .action(async (flags: PruneFlags) => (await import('./commands/prune.ts')).prune(flags));
  program
    .command('info')
    .description('Describe one device.')
    .argument('<id>', 'the number N of /dev/ublkbN', wholeNumber)
    .option('--json', 'as JSON')
    .addHelpText('after', example('ublk info 0'))
    .action(async (id: number, flags: OutputFlags) => {
      await (await import('./commands/info.ts')).info(id, flags);
    });
  program
    .command('top')
    .description('Show what the devices of this machine do now, as a screen or a table per look.')
    .argument('[id]', 'the number N of /dev/ublkbN, for one device alone', wholeNumber)
    .option('--interval <seconds>', 'between two looks', seconds, 1)
    .option('--count <n>', 'end after so many looks (plain and JSON)', wholeNumber)
    .addOption(new Option('--sort <by>', 'the order of the devices').choices(SORTS).default('busy'))
    .option('--plain', 'print a table per look, also on a terminal')
    .option('--json', 'print a line of JSON per look')
    .addHelpText('after', example('ublk top', 'ublk top 0', 'ublk top --json --count 1'))
    .action(async (id: number | undefined, flags: TopFlags) => {
      await (await import('./commands/top.ts')).top(id, flags);
    });
  program
    .command('metrics')
    .description('Print the counters of all devices in the text format of Prometheus.')
    .option('--listen <address>', 'answer scrapes there until a signal: 9760, 127.0.0.1:9760')
    .addHelpText('after', example('ublk metrics', 'ublk metrics --listen 9760'))
    .action(async (flags: MetricsFlags) => {
      await (await import('./commands/metrics.ts')).metrics(flags);
    });
}

function describeMachine(program: Command): void {
  program
    .command('features')
    .description("List the ublk driver's features: what this kernel has, and what a device got.")
    .argument('[id]', 'the number N of /dev/ublkbN', wholeNumber)
    .option('--json', 'as JSON')
    .addHelpText('after', example('ublk features'))
    .action(async (id: number | undefined, flags: OutputFlags) => {
      await (await import('./commands/features.ts')).features(id, flags);
    });
  program
    .command('doctor')
    .description('Say what this machine can do, and the command that mends what it cannot.')
    .option('--json', 'as JSON')
    .addHelpText('after', example('ublk doctor'))
    .action(async (flags: OutputFlags) => (await import('./commands/doctor.ts')).doctor(flags));
}

function serveUdev(program: Command): void {
  program
    .command('udev-rules')
    .description('Print udev rules that let users who are not root serve devices of their own.')
    .option('--names', 'print those that make /dev/ublk/by-name/NAME instead')
    .addHelpText('after', example('ublk udev-rules | sudo tee /etc/udev/rules.d/97-ublk.rules'))
    .action(async (flags: { names?: true }) => {
      (await import('./commands/udev.ts')).udevRules(flags);
    });
  program
    .command('owner', { hidden: true })
    .description('Print the user and the group of a device, for the udev rules.')
    .argument('<id>', 'the number N of /dev/ublkbN', wholeNumber)
    .action(async (id: number) => (await import('./commands/udev.ts')).owner(id));
}

function printCompletion(program: Command): void {
  program
    .command('completion')
    .description('Print a script that completes the words of this command in a shell.')
    .addArgument(new Argument('<shell>', 'the shell that reads the script').choices(SHELLS))
    .addHelpText('after', example('source <(ublk completion bash)'))
    .action(async (shell: Shell) => {
      (await import('./commands/completion.ts')).completion(program, shell);
    });
}
