// A folder for one run's sockets and files, gone when the run ends, however it ends.

import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { leftovers, nameOfOurs } from '../scripts/leftovers.ts';

const PREFIX = 'ublk-vm-';

export interface Scratch extends AsyncDisposable {
  dir: string;
}

export async function makeScratch(parent: string = tmpdir()): Promise<Scratch> {
  // Of runs that were ended with SIGKILL.
  for (const dead of await leftovers(parent, PREFIX))
    await rm(dead, { recursive: true, force: true });
  const dir = await mkdtemp(join(parent, await nameOfOurs(PREFIX)));
  const onExit = () => rmSync(dir, { recursive: true, force: true });
  process.once('exit', onExit);
  return {
    dir,
    async [Symbol.asyncDispose]() {
      process.off('exit', onExit);
      await rm(dir, { recursive: true, force: true });
    },
  };
}
