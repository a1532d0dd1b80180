import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';
import { afterEach, expect, test } from 'vitest';

import { createDevice, targets } from '../../src/index.ts';
import { temporaryFolder } from './image.ts';
import { expectNoDevices, withUblk } from './machine.ts';

const SOURCES = fileURLToPath(new URL('../../src', import.meta.url));

function checksums(folder: string): Map<string, string> {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true });
  return new Map(
    files
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .sort()
      .map((path) => [
        path.slice(folder.length),
        createHash('sha256').update(readFileSync(path)).digest('hex'),
      ]),
  );
}

withUblk('a file system on a device', () => {
  afterEach(expectNoDevices);

  test('keeps a tree of files over unmounting, closing and serving again', async () => {
    const folder = temporaryFolder();
    const image = join(folder, 'disk.img');
    const mountPoint = join(folder, 'mnt');
    mkdirSync(mountPoint);
    writeFileSync(image, '');
    truncateSync(image, 64 << 20);

    await using first = await createDevice({ target: targets.file(image), queues: 2 });
    await execa('mkfs.ext4', ['-q', first.path]);
    await execa('mount', [first.path, mountPoint]);
    cpSync(SOURCES, join(mountPoint, 'src'), { recursive: true });
    await execa('umount', [mountPoint]);
    await first.close();
    expect(first.stats().total.flushes).toBeGreaterThan(0);

    await execa('e2fsck', ['-f', '-n', image]);
    await using second = await createDevice({ target: targets.file(image, { readOnly: true }) });
    await execa('mount', ['-o', 'ro', second.path, mountPoint]);
    expect(checksums(join(mountPoint, 'src'))).toEqual(checksums(SOURCES));
    await execa('umount', [mountPoint]);
    await second.close();
  });
});
