// Starts the job, here or in the virtual machine.

import { statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { execa } from 'execa';
import { formatSize } from '../../src/size.ts';
import { KERNELS, VmError, runInVm } from '../../vm/index.ts';
import { SYSTEM_PATH } from '../debian.ts';
import type { JobFollower } from './follow.ts';
import type { Inputs } from './inputs.ts';
import type { StartOptions } from './options.ts';
import type { JobSpec } from './protocol.ts';

/** Where the work is done on this very system: on a disk, as a rule, unlike /tmp. */
const NATIVE_FOLDER = '/var/tmp';

export interface Launch {
  options: StartOptions;
  inputs: Inputs;
  checkout: string;
  follower: JobFollower;
  signal: AbortSignal;
}

/** Runs the job and settles when it has ended and tidied up; its failures go to the follower. */
export async function launch(native: boolean, given: Launch): Promise<void> {
  const { follower, signal } = given;
  let complaint = '';
  const stderr = new Writable({
    write(chunk: Buffer, _encoding, done) {
      complaint = (complaint + chunk.toString()).slice(-4000);
      done();
    },
  });
  try {
    const status = await (native ? runNative : runVirtual)(given, stderr);
    signal.throwIfAborted();
    follower.fail(new Error(`The job ended early, with status ${status}.\n${complaint.trim()}`));
  } catch (error) {
    follower.fail(error as Error);
  }
}

async function runNative({ checkout, follower, signal, ...given }: Launch, stderr: Writable) {
  const { inputs } = given;
  const folder = NATIVE_FOLDER;
  await needSpace(folder, inputs.size + inputs.bytes);
  const command = jobCommand(checkout, describeJob(given, { folder }));
  const child = execa(command[0]!, command.slice(1), {
    stdin: 'ignore',
    env: { PATH: SYSTEM_PATH },
    reject: false,
    buffer: false,
    // In a session of its own, out of reach of Ctrl-C: it is told once, and waited for.
    detached: true,
    cleanup: false,
    cancelSignal: signal,
    forceKillAfterDelay: false,
  });
  child.stdout.pipe(follower.output, { end: false });
  child.stderr.pipe(stderr);
  const { exitCode, signal: killer } = await child;
  return exitCode ?? killer;
}

async function runVirtual({ checkout, follower, signal, ...given }: Launch, stderr: Writable) {
  const { inputs, options } = given;
  const disk = Math.ceil((1.1 * (inputs.size + inputs.bytes)) / 1024 ** 2) + 512;
  await needSpace(tmpdir(), inputs.size + inputs.bytes);
  const machine = {
    command: jobCommand(checkout, describeJob(given, { disk: '/dev/vda' })),
    cwd: checkout,
    kernel: options.kernel ?? KERNELS[0]!,
    disk: `${disk}M`,
    stdout: follower.output,
    stderr,
    signal,
  };
  const { status } = await runInVm(machine).catch((error: unknown) => {
    // An emulated guest panics now and then while it boots; nothing has been done by then.
    if (!(error instanceof VmError) || follower.started) throw error;
    console.error('The guest did not boot; once more…');
    return runInVm(machine);
  });
  return status;
}

function jobCommand(checkout: string, spec: JobSpec): string[] {
  const program = join(checkout, '.cache/start/scripts/start/job/main.js');
  return [process.execPath, program, JSON.stringify(spec)];
}

function describeJob(
  { inputs, options }: Pick<Launch, 'inputs' | 'options'>,
  scratch: JobSpec['scratch'],
): JobSpec {
  const { image, roots, size } = inputs;
  const { queues, buffers } = options;
  return { image, roots, size, queues, buffers, scratch };
}

async function needSpace(dir: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(dir);
  if (bavail * bsize > bytes) return;
  const [free, needed] = [bavail * bsize, bytes].map((one) => formatSize(Math.round(one)));
  throw new Error(`${dir} has ${free} free; the copies of the files and the image need ${needed}.`);
}
