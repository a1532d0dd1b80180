import { execa } from 'execa';
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';

import { createDevice, targets } from '../../src/index.ts';
import { sparseImage } from './image.ts';
import { expectNoDevices, isTestMachine, withUblk } from './machine.ts';
import { makeNullDisk, removeNullDisk } from './null-disk.ts';

const MIB = 1024 * 1024;

/** A disk in memory that goes away with the test. */
async function nullDisk(name: string, attributes: Record<string, string> = {}): Promise<string> {
  const path = await makeNullDisk(name, attributes);
  onTestFinished(() => removeNullDisk(name));
  return path;
}

withUblk('what lies behind a device', () => {
  afterEach(expectNoDevices);

  describe.runIf(isTestMachine)('that is read-only', () => {
    async function isServedOnlyReadOnly(path: string): Promise<void> {
      const failure = { code: 'ERR_UBLK_PERMISSION', hint: expect.any(String) as string };
      await expect(createDevice({ target: targets.file(path) })).rejects.toMatchObject(failure);
      const children = [targets.file(path), targets.file(sparseImage(MIB))];
      const striped = targets.striped(children, { chunk: 4096 });
      await expect(createDevice({ target: striped })).rejects.toMatchObject(failure);
      await using device = await createDevice({ target: targets.file(path, { readOnly: true }) });
      expect((await execa('blockdev', ['--getro', device.path])).stdout).toBe('1');
    }

    test('is not served for writing: a disk that was set so', async () => {
      const path = await nullDisk('ublkreadonly');
      await execa('blockdev', ['--setro', path]);
      await isServedOnlyReadOnly(path);
    });

    test('is not served for writing: a loop device', async () => {
      await execa('modprobe', ['loop']);
      const args = ['--find', '--show', '--read-only', sparseImage(MIB)];
      const { stdout: path } = await execa('losetup', args);
      onTestFinished(() => void execa('losetup', ['--detach', path]));
      await isServedOnlyReadOnly(path);
    });
  });
});
