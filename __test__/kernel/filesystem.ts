import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { execa } from 'execa';
import { onTestFinished } from 'vitest';

import type { Device } from '../../src/index.ts';
import { temporaryFolder } from './image.ts';

/** An empty folder to mount something on. What a test leaves mounted there goes with the test. */
export function mountPoint(): string {
  const folder = join(temporaryFolder(), 'mnt');
  mkdirSync(folder);
  onTestFinished(async () => {
    await execa('umount', ['--lazy', '--quiet', folder], { reject: false });
  });
  return folder;
}

/**
 * Whether a file system on the device holds a file, past what the page cache has of it.
 *
 * @param mkfs Makes the file system, but for the device's path.
 * @param check Finds fault with it, but for the device's path.
 */
export async function carries(
  { path }: Device,
  mkfs: readonly [string, ...string[]],
  check: readonly [string, ...string[]],
): Promise<boolean> {
  const folder = mountPoint();
  await execa(mkfs[0], [...mkfs.slice(1), path]);
  await execa('mount', [path, folder]);
  const bytes = randomBytes(12 << 20);
  // Not at once: a handler's data comes from this thread.
  await writeFile(join(folder, 'file'), bytes);
  await execa('umount', [folder]);
  await execa('mount', ['-o', 'ro', path, folder]);
  const kept = await readFile(join(folder, 'file'));
  await execa('umount', [folder]);
  await execa(check[0], [...check.slice(1), path]);
  return kept.equals(bytes);
}
