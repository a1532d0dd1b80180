// Serves folders of the host to the guest. There are two virtiofsd: one that came with QEMU until
// Debian 12, and its successor with a package of its own and other options.

import { spawnSync } from 'node:child_process';
import { setTimeout } from 'node:timers/promises';
import { findProgram } from '../scripts/debian.ts';
import { exists } from '../scripts/cache.ts';
import { VmError } from './options.ts';
import { type Program, start } from './processes.ts';

const WITH_QEMU = '/usr/lib/qemu/virtiofsd';
const OF_ITS_OWN = '/usr/libexec/virtiofsd';

export function hasVirtiofsd(): boolean {
  return findProgram(WITH_QEMU) !== undefined || findProgram(OF_ITS_OWN) !== undefined;
}

/** How a folder is served. */
export interface Serving {
  readonly cache: 'always' | 'auto';
  /** Whether the guest may write to it. */
  readonly writable: boolean;
}

/** Starts serving `dir` and settles when QEMU can connect to `socket`. */
export async function serveFolder(dir: string, socket: string, how: Serving): Promise<Program> {
  const [name = '', ...args] = commandLine(dir, socket, how, knowsReadOnly());
  const program = start(name, args);
  await appears(socket, program);
  return program;
}

/** A newer virtiofsd itself refuses to write (`--readonly`); with an older one only the guest does. */
function knowsReadOnly(): boolean {
  if (!findProgram(OF_ITS_OWN)) return false;
  return spawnSync(OF_ITS_OWN, ['--help'], { encoding: 'utf8' }).stdout.includes('--readonly');
}

export function commandLine(
  dir: string,
  socket: string,
  { cache, writable }: Serving,
  knowsReadOnly: boolean,
): string[] {
  const isRoot = process.getuid?.() === 0;
  if (findProgram(OF_ITS_OWN)) {
    return [
      OF_ITS_OWN,
      `--socket-path=${socket}`,
      `--shared-dir=${dir}`,
      `--cache=${cache}`,
      `--sandbox=${isRoot ? 'chroot' : 'none'}`,
      ...(!writable && knowsReadOnly ? ['--readonly'] : []),
      '--no-announce-submounts', // an overlay would show an empty folder for each mount point
    ];
  }
  if (!isRoot) {
    throw new VmError(
      'The virtiofsd of this Debian (12 or older) works only for root. Run the same command as root.',
    );
  }
  const options = `source=${dir},cache=${cache},sandbox=chroot`;
  return [WITH_QEMU, `--socket-path=${socket}`, '-o', options];
}

async function appears(path: string, program: Program): Promise<void> {
  let ended = false;
  void program.ended.then(() => (ended = true));
  while (!(await exists(path))) {
    if (ended) throw new VmError(`${program.name} could not be started:\n${program.stderr()}`);
    await setTimeout(20);
  }
}
