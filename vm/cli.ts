// `npm run vm -- [options] command args…`

import { constants } from 'node:os';
import { Command, InvalidArgumentError, Option } from 'commander';
import { KERNELS, SignalError, VmError, type VmOptions, runInVm } from './index.ts';

const EXAMPLES = `
Examples:
  npm run vm -- uname -r
  npm run vm -- --kernel 6.12 npx vitest run __test__/kernel
  npm run vm -- --icount --share bench/results node bench/run.ts

The guest sees this machine's files at the same paths. It may write to all of them, but only what
lies in a folder named with --share is kept. The exit status is the command's; 124 if the time was
up, 125 if the machine failed.`;

function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('It must be a whole number.');
  return Number(text);
}

function collect(value: string, before: string[]): string[] {
  return [...before, value];
}

const program = new Command('npm run vm --')
  .description('Run a command under a kernel that has ublk.')
  .argument('[command...]', 'the command; none: an interactive shell')
  .passThroughOptions()
  .addOption(
    new Option('--kernel <series>', 'kernel series (default: the running one, or 7.3 in a VM)') //
      .choices(KERNELS),
  )
  .option('--cpus <n>', 'virtual processors (default: 2)', wholeNumber)
  .option('--memory <size>', 'memory of the guest (default: 8G, or half of what there is)')
  .option('--icount', 'count instructions as time: slow, but measurements repeat exactly')
  .option('--share <dir>', 'a folder that the guest may write to (repeatable)', collect, [])
  .option('--cwd <dir>', 'working directory of the command (default: this one)')
  .option('--timeout <s>', 'seconds that it may take, 0 for any (default: 1800)', wholeNumber)
  .option('--disk <size>', 'give the guest a disk, /dev/vda: an empty one, or an image by its path')
  .addOption(new Option('--init <program>', "the guest's PID 1").choices(['systemd']))
  .option('--root <dir>', "a folder whose files are laid over the guest's, such as etc/fstab")
  .option('--verbose', "show the guest's console on stderr")
  .addHelpText('after', EXAMPLES)
  .action(run);

async function run(command: string[], flags: Omit<VmOptions, 'command'> & { share: string[] }) {
  if (command.length === 0 && !(process.stdin.isTTY && process.stdout.isTTY)) {
    program.error('error: name a command; a shell needs a terminal for its input and output');
  }
  const { share: shares, ...options } = flags;
  const { status } = await runInVm({ ...options, command, shares });
  process.exitCode = status;
}

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof SignalError) process.kill(process.pid, error.signal);
  // Whoever read the output has gone away, as with `| head`.
  if ((error as NodeJS.ErrnoException).code === 'EPIPE')
    process.exit(128 + constants.signals.SIGPIPE);
  console.error(`error: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = error instanceof VmError ? error.status : 125;
}
