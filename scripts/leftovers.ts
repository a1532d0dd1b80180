// What processes of this user left behind in a shared temporary directory when SIGKILL ended them.

import { existsSync } from 'node:fs';
import { lstat, readdir, readlink } from 'node:fs/promises';
import { join } from 'node:path';

/** The beginning of the name of a folder of this process; {@link leftovers} knows whose it was. */
export async function nameOfOurs(prefix: string): Promise<string> {
  return `${prefix}${await pidNamespace()}-${process.pid}-`;
}

/** What tells the process ids of this container, if it is one, from those of others. */
async function pidNamespace(): Promise<string> {
  return /\d+/.exec(await readlink('/proc/self/ns/pid'))?.[0] ?? '0';
}

/**
 * The folders of dead processes. Anybody may put folders and links into a shared temporary directory, so
 * only a folder that this user alone could have filled is named.
 */
export async function leftovers(parent: string, prefix: string): Promise<string[]> {
  const name = new RegExp(`^${prefix}${await pidNamespace()}-(\\d+)-`);
  const dead: string[] = [];
  for (const found of await readdir(parent)) {
    const pid = name.exec(found)?.[1];
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue;
    if (await isPrivate(join(parent, found))) dead.push(join(parent, found));
  }
  return dead;
}

/** Whether a path is a folder, no link, of this user's, into which nobody else can write. */
async function isPrivate(path: string): Promise<boolean> {
  const found = await lstat(path).catch(() => undefined);
  if (!found?.isDirectory()) return false;
  return found.uid === process.getuid?.() && (found.mode & 0o022) === 0;
}
