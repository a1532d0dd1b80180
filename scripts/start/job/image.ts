// The ext4 image.

import { statfs } from 'node:fs/promises';
import { run } from './run.ts';

/** Makes `image`, `bytes` in size, of the files under `tree`. */
export async function makeImage(
  image: string,
  bytes: number,
  { tree, files }: { tree: string; files: number },
  signal: AbortSignal,
): Promise<void> {
  // One inode per 16 KiB, as ever, but at least what the files need that come twice.
  const inodes = Math.max(Math.floor(bytes / 16384), 3 * files + 1024);
  const options = ['-q', '-F', '-L', 'ublk', '-N', String(inodes), '-d', tree];
  await run('mkfs.ext4', [...options, image, `${Math.floor(bytes / 1024)}k`], signal);
}

/** Copies the user's image, holes and all, and lets its journal be replayed as a mount would. */
export async function copyImage(from: string, to: string, signal: AbortSignal): Promise<void> {
  await run('cp', ['--reflink=auto', '--sparse=always', from, to], signal);
  try {
    await run('e2fsck', ['-f', '-p', to], signal);
  } catch (error) {
    signal.throwIfAborted();
    if (/status 1\b/.test(String(error))) return; // it had something to tidy up, and did
    throw new Error(`${from} is damaged to begin with; mend it first. ${String(error)}`, {
      cause: error,
    });
  }
}

/** Checks the unmounted file system on `device` and changes nothing; its summary when clean. */
export async function checkImage(device: string, signal: AbortSignal): Promise<string> {
  const said = await run('e2fsck', ['-f', '-n', device], signal);
  return said.trim().split('\n').at(-1) ?? '';
}

/** Rejects unless the mounted file system has room for `bytes`. */
export async function needRoom(dir: string, bytes: number, what: string): Promise<void> {
  const { bavail, bsize } = await statfs(dir);
  if (bavail * bsize > bytes * 1.05) return;
  throw new Error(
    `${what} has ${bavail * bsize} bytes free; the files need ${bytes}. ` +
      'Name a larger image (--image), or fewer files (--from).',
  );
}
