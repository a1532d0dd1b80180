import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readlink, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

import { execa } from 'execa';

import { exportNbd, targets, UblkError } from '../../src/index.ts';

/** A folder for the files of a test. */
export async function folder(): Promise<AsyncDisposable & { at(name: string): string }> {
  const path = await mkdtemp(join(tmpdir(), 'ublk-export-'));
  return {
    at: (name) => join(path, name),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
}

/** An empty file of the given size. */
export async function sparse(path: string, size: number): Promise<string> {
  await writeFile(path, '');
  await truncate(path, size);
  return path;
}

/** A file of pages that differ, with a hole of `hole` pages behind each page. */
export async function patterned(path: string, pages: number, hole = 0): Promise<string> {
  const stride = 4096 * (hole + 1);
  const image = Buffer.alloc(pages * stride);
  for (let page = 0; page < pages; page += 1)
    image.fill(page + 1, page * stride, page * stride + 4096);
  await writeFile(path, image);
  if (hole > 0) await execa('fallocate', ['--dig-holes', path]);
  return path;
}

/** Why exports cannot be tested here; undefined where they can. */
export const obstacle: string | undefined = await findObstacle();

async function findObstacle(): Promise<string | undefined> {
  const needed = ['nbdinfo', 'nbdcopy', 'qemu-img', 'qemu-io', 'fio'];
  const path = (process.env.PATH ?? '').split(delimiter);
  const missing = needed.filter((name) => !path.some((dir) => existsSync(join(dir, name))));
  if (missing.length > 0) return `no ${missing.join(', ')}`;
  await using files = await folder();
  try {
    const target = targets.null({ size: '1MiB' });
    await using _exported = await exportNbd(target, { socket: files.at('socket') });
    return undefined;
  } catch (error) {
    if (UblkError.is(error)) return error.message;
    throw error;
  }
}

/** The sockets and files that this process has open, by what they are. */
export async function descriptors(): Promise<string[]> {
  const found = await readdir('/proc/self/fd');
  const names = await Promise.all(
    found.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
  );
  return names.filter((name) => /^socket:|^anon_inode:\[io_uring|^\//.test(name)).toSorted();
}
