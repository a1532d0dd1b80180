import { truncateSync } from 'node:fs';
import { join } from 'node:path';

import { execa } from 'execa';
import { afterEach, describe, expect, onTestFinished, test, type TestContext } from 'vitest';

import { createDevice, recoverDevice, targets } from '../../src/index.ts';
import { readBytes, writeBytes } from './bytes.ts';
import { mountPoint } from './filesystem.ts';
import { sparseImage } from './image.ts';
import { createOrSkip, expectNoDevices, isTestMachine, need, withUblk } from './machine.ts';
import { makeNullDisk, removeNullDisk } from './null-disk.ts';

const MIB = 1024 * 1024;

/** A disk in memory that goes away with the test. */
async function nullDisk(name: string, attributes: Record<string, string> = {}): Promise<string> {
  const path = await makeNullDisk(name, attributes);
  onTestFinished(() => removeNullDisk(name));
  return path;
}

/** A file system on an image of its own, and where it is mounted. */
async function fileSystem(mkfs: readonly string[]): Promise<string> {
  await execa('modprobe', ['loop']);
  const image = sparseImage(512 * MIB);
  const [program = '', ...rest] = mkfs;
  await execa(program, [...rest, image]);
  const folder = mountPoint();
  await execa('mount', ['-o', 'loop', image, folder]);
  onTestFinished(async () => void (await execa('umount', [folder])));
  return folder;
}

/** One sector of `byte` at a sector of a device, read back from it, past the page cache. */
async function writesASector(path: string, sector: number): Promise<boolean> {
  const bytes = Buffer.from('sector'.padEnd(512, '.'));
  await writeBytes({ path }, sector * 512, bytes);
  return bytes.equals(await readBytes({ path }, sector * 512, 512));
}

withUblk('what lies behind a device', () => {
  afterEach(expectNoDevices);

  describe.runIf(isTestMachine)('that is read-only', () => {
    async function isServedOnlyReadOnly(path: string): Promise<boolean> {
      const failure = { code: 'ERR_UBLK_PERMISSION', hint: expect.any(String) as string };
      await expect(createDevice({ target: targets.file(path) })).rejects.toMatchObject(failure);
      const children = [targets.file(path), targets.file(sparseImage(MIB))];
      const striped = targets.striped(children, { chunk: 4096 });
      await expect(createDevice({ target: striped })).rejects.toMatchObject(failure);
      await using device = await createDevice({ target: targets.file(path, { readOnly: true }) });
      return (await execa('blockdev', ['--getro', device.path])).stdout === '1';
    }

    test('is not served for writing: a disk that was set so', async () => {
      const path = await nullDisk('ublkreadonly');
      await execa('blockdev', ['--setro', path]);
      expect(await isServedOnlyReadOnly(path)).toBe(true);
    });

    test('is not served for writing: a loop device', async () => {
      await execa('modprobe', ['loop']);
      const args = ['--find', '--show', '--read-only', sparseImage(MIB)];
      const { stdout: path } = await execa('losetup', args);
      onTestFinished(() => void execa('losetup', ['--detach', path]));
      expect(await isServedOnlyReadOnly(path)).toBe(true);
    });
  });

  describe.runIf(isTestMachine)('that changes its alignment', () => {
    async function isServedAgainAfter(
      context: TestContext,
      path: string,
      change: () => Promise<string>,
    ): Promise<boolean> {
      await need(context, 'QUIESCE');
      const options = { target: targets.file(path), recovery: 'reissue' } as const;
      const device = await createOrSkip(context, options);
      expect((await execa('blockdev', ['--getss', device.path])).stdout).toBe('512');
      expect(await writesASector(device.path, 3)).toBe(true);
      await device.quiesce();
      const target = targets.file(await change());
      await using again = await recoverDevice(device.id, { target });
      expect((await execa('blockdev', ['--getss', again.path])).stdout).toBe('512');
      expect(await writesASector(again.path, 5)).toBe(true);
      const { stdout } = await execa('dd', [`if=${again.path}`, 'bs=512', 'skip=3', 'count=1']);
      return stdout.startsWith('sector');
    }

    test('keeps its blocks, and its clone has what it is asked for (xfs)', async (context) => {
      const folder = await fileSystem(['mkfs.xfs', '-q', '-f', '-m', 'reflink=1']);
      const path = sparseImage(16 * MIB, folder);
      const clone = join(folder, 'clone.img');
      const served = await isServedAgainAfter(context, path, async () => {
        await execa('cp', ['--reflink=always', path, clone]);
        return path;
      });
      expect(served).toBe(true);
      await using device = await createDevice({
        target: targets.file(clone, { logicalBlockSize: 512 }),
      });
      expect((await execa('blockdev', ['--getss', device.path])).stdout).toBe('512');
      expect(await writesASector(device.path, 7)).toBe(true);
    });

    test('keeps its blocks when it moves to a disk with larger ones', async (context) => {
      const disk = await nullDisk('ublklarge', { blocksize: '4096', size: '32' });
      const path = sparseImage(16 * MIB);
      const served = await isServedAgainAfter(context, path, async () => {
        await execa('dd', [`if=${path}`, `of=${disk}`, 'bs=1M', 'conv=fsync']);
        return disk;
      });
      expect(served).toBe(true);
    });

    test('keeps its size when it has grown by less than a block', async (context) => {
      const path = sparseImage(16 * MIB);
      const served = await isServedAgainAfter(context, path, async () => {
        truncateSync(path, 16 * MIB + 100);
        return path;
      });
      expect(served).toBe(true);
    });
  });
});
