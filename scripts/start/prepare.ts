// What the job needs: Debian packages, the addon and the library, itself as JavaScript.

import { execa } from 'execa';
import { VM_PACKAGES } from '../../vm/index.ts';
import { ensurePackages, findProgram } from '../debian.ts';

export interface Circle {
  checkout: string;
  signal: AbortSignal;
  /** Shows a line under the step that is under way. */
  say(text: string): void;
}

/** Installs what is missing, with apt-get. */
export async function installPackages({ vm }: { vm: boolean }, { say, signal }: Circle) {
  await telling(say, async () => {
    await ensurePackages(['gcc', 'libc6-dev'], 'link the native addon');
    await ensurePackages(['e2fsprogs', 'mount'], 'make, check and mount the image');
    await ensurePackages(['fio'], 'measure');
    if (vm) await ensurePackages(VM_PACKAGES, 'run the test machine');
  });
  signal.throwIfAborted();
}

/** `npm run build`, and the job compiled. */
export async function build({ checkout, say, signal }: Circle): Promise<void> {
  if (!findProgram('cargo')) {
    throw new Error('Rust is missing: there is no cargo on the PATH. Install it with rustup.');
  }
  const npm = process.env.npm_execpath;
  const command = npm ? [process.execPath, npm] : ['npm'];
  await runBuild([...command, 'run', 'build'], { checkout, say, signal });
  const tsc = `${checkout}/node_modules/typescript/bin/tsc`;
  const project = `${checkout}/scripts/start/job/tsconfig.json`;
  await runBuild([process.execPath, tsc, '-p', project], { checkout, say, signal });
}

async function runBuild([program = '', ...args]: string[], { checkout, say, signal }: Circle) {
  const child = execa(program, args, {
    cwd: checkout,
    stdin: 'ignore',
    all: true,
    reject: false,
    cancelSignal: signal,
  });
  child.all.on('data', (chunk: Buffer) => {
    const line = chunk
      .toString()
      .trim()
      .split(/[\r\n]+/)
      .at(-1);
    if (line && process.stderr.isTTY) say(line);
  });
  const { failed, all } = await child;
  signal.throwIfAborted();
  if (!failed) return;
  const tail = all.trim().split('\n').slice(-30).join('\n');
  throw new Error(`The build failed (${[program, ...args].join(' ')}):\n${tail}`);
}

/**
 * Runs `work`, which tells on console.error what it installs or downloads, with that shown by
 * `say`: printed in the middle of the list of steps it would be overwritten.
 */
export async function telling<T>(say: (text: string) => void, work: () => Promise<T>): Promise<T> {
  const { error } = console;
  console.error = (...words: unknown[]) => say(words.map(String).join(' '));
  try {
    return await work();
  } finally {
    console.error = error;
  }
}
