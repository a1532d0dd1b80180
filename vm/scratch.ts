// A folder for one run's sockets and files, gone when the run ends, however it ends.

import { rmSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { exists } from '../scripts/cache.ts';

const PREFIX = 'ublk-vm-';

export interface Scratch extends AsyncDisposable {
  dir: string;
}

export async function makeScratch(): Promise<Scratch> {
  await sweep();
  const dir = await mkdtemp(join(tmpdir(), `${PREFIX}${process.pid}-`));
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

/** Removes what runs left behind that were ended with SIGKILL; the name tells whose it was. */
async function sweep(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const pid = new RegExp(`^${PREFIX}(\\d+)-`).exec(name)?.[1];
    if (pid === undefined || (await exists(`/proc/${pid}`))) continue;
    await rm(join(tmpdir(), name), { recursive: true, force: true });
  }
}
