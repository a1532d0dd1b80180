// Running the command on this very machine, when its kernel has ublk.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';
import { execa } from 'execa';
import { exists } from '../scripts/cache.ts';
import { findProgram } from '../scripts/debian.ts';
import type { VmOptions, VmResult } from './options.ts';

/** Whether the running kernel has ublk, as a driver in use or as a module that could be loaded. */
export async function kernelHasUblk(): Promise<boolean> {
  if (await exists('/dev/ublk-control')) return true;
  const modprobe = findProgram('modprobe');
  if (!modprobe) return false;
  const { failed } = await execa(modprobe, ['-n', '-q', 'ublk_drv'], { reject: false });
  return !failed;
}

/** Runs the command under the running kernel, with ublk_drv loaded if this process may do that. */
export async function runHere(options: VmOptions): Promise<VmResult> {
  if (!(await exists('/dev/ublk-control')) && process.getuid?.() === 0) {
    console.error('Loading ublk_drv into the running kernel…');
    await execa(findProgram('modprobe') ?? 'modprobe', ['ublk_drv']);
  }
  const [program = process.env.SHELL ?? '/bin/sh', ...args] = options.command;
  const child = spawn(program, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: [
      options.command.length === 0 ? 'inherit' : 'ignore',
      options.stdout ? 'pipe' : 'inherit',
      options.stderr ? 'pipe' : 'inherit',
    ],
    signal: options.signal,
  });
  if (options.stdout) child.stdout?.pipe(options.stdout, { end: false });
  if (options.stderr) child.stderr?.pipe(options.stderr, { end: false });
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  return { status: code ?? 128 + (signal ? constants.signals[signal] : 0) };
}
