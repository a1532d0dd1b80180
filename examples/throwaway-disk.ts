// A file system of its own for one piece of work, gone afterwards: for tests and CI jobs.
// Needs root and e2fsprogs.
//
//   npx tsx examples/throwaway-disk.ts

import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, statfs, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createDevice, formatSize, targets } from 'ublk';

const run = promisify(execFile);

/** Calls `use` with a folder on a new ext4 file system of `size` bytes. */
async function withDisk<T>(size: number, use: (dir: string) => Promise<T>): Promise<T> {
  const home = await mkdtemp('/var/tmp/disk-');
  try {
    const image = join(home, 'disk.img');
    const dir = join(home, 'mnt');
    await mkdir(dir);
    await writeFile(image, '');
    await truncate(image, size); // takes no space until it is written to

    await using device = await createDevice({ target: targets.file(image) });
    await run('mkfs.ext4', ['-q', device.path]);
    await run('mount', [device.path, dir]);
    try {
      return await use(dir);
    } finally {
      await run('umount', [dir]);
    }
  } finally {
    await rm(home, { recursive: true });
  }
}

await withDisk(64 * 1024 * 1024, async (dir) => {
  await writeFile(join(dir, 'hello'), 'world');
  const { bavail, bsize } = await statfs(dir);
  console.log(`${dir} has ${formatSize(bavail * bsize)} free`);
});
