// Folders of processes ended by SIGKILL, in a shared temporary directory.

import { existsSync } from 'node:fs';
import { lstat, readdir, readlink } from 'node:fs/promises';
import { join } from 'node:path';

/** The beginning of the name of a folder of this process, by which {@link leftovers} finds the owner. */
export async function nameOfOurs(prefix: string): Promise<string> {
  return `${prefix}${await pidNamespace()}-${process.pid}-`;
}

/** The number of the PID namespace: process ids of other containers mean other processes. */
async function pidNamespace(): Promise<string> {
  return /\d+/.exec(await readlink('/proc/self/ns/pid'))?.[0] ?? '0';
}

/**
 * The folders of dead processes of this user and container. Any user may put folders and links into a
 * shared temporary directory, so a folder that another user could have filled is left out.
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

/** Whether a path is a folder (and no link) of this user, and only this user can write to the folder. */
async function isPrivate(path: string): Promise<boolean> {
  const found = await lstat(path).catch(() => undefined);
  if (!found?.isDirectory()) return false;
  return found.uid === process.getuid?.() && (found.mode & 0o022) === 0;
}
