// Where downloads are kept between runs and shared by all checkouts of this user.

import { mkdir, mkdtemp, rename, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

/** `$UBLK_CACHE`, or `ublk` in the user's cache directory. May not exist yet. */
export function cacheDir(): string {
  const { UBLK_CACHE, XDG_CACHE_HOME } = process.env;
  return resolve(UBLK_CACHE || join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'ublk'));
}

/**
 * Makes the directory `target` once: `fill` works in a fresh directory beside it, which is renamed
 * when complete. So a `target` that exists is whole, whatever was interrupted, and of two processes
 * that make it at once the second adopts what the first made.
 */
export async function fillOnce(
  target: string,
  fill: (dir: string) => Promise<void>,
): Promise<string> {
  if (await exists(target)) return target;
  await mkdir(dirname(target), { recursive: true });
  const draft = await mkdtemp(`${target}.draft-`);
  try {
    await fill(draft);
    await rename(draft, target).catch(async (error: unknown) => {
      if (!(await exists(target))) throw error;
    });
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
  return target;
}

export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
