// A mounted file system.

import { setTimeout as sleep } from 'node:timers/promises';
import { run } from './run.ts';

/** Something that looks into every new file system (a file indexer) lets go soon. */
const PATIENCE_MS = 10_000;

/** Mounts a device; disposing unmounts it, which writes out what is still in memory. */
export async function mount(
  device: string,
  dir: string,
  signal: AbortSignal,
): Promise<AsyncDisposable> {
  await run('mount', ['-t', 'ext4', device, dir], signal);
  return { [Symbol.asyncDispose]: () => unmount(dir) };
}

async function unmount(dir: string): Promise<void> {
  for (const deadline = Date.now() + PATIENCE_MS; ; await sleep(250)) {
    try {
      return void (await run('umount', [dir]));
    } catch (error) {
      if (Date.now() > deadline || !/busy/.test(String(error))) throw error;
    }
  }
}
