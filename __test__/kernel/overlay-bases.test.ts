import { readFileSync, writeFileSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { execa } from 'execa';
import { afterEach, expect, test } from 'vitest';

import {
  createDevice,
  createOverlay,
  flattenOverlay,
  forkOverlay,
  rebaseOverlay,
  targets,
} from '../../src/index.ts';
import { mountPoint } from './filesystem.ts';
import { fioVerify } from './fio.ts';
import { sparseImage } from './image.ts';
import { expectNoDevices, withUblk } from './machine.ts';

const MIB = 1024 * 1024;

withUblk('bases of overlays', () => {
  afterEach(expectNoDevices);

  test('a mounted disk stands on a frozen layer in another folder, and goes on when that is merged', async () => {
    const image = sparseImage(48 * MIB);
    const file = (name: string) => join(dirname(image), name);
    const base = targets.file(image);
    const [low, high, guest] = [file('low'), file('high'), file('elsewhere/guest')];
    await mkdir(file('elsewhere'));
    const files = Buffer.alloc(2 * MIB, 'below');
    {
      await using device = await createDevice({
        target: targets.overlay(base, low, { create: true }),
      });
      await execa('mkfs.ext4', ['-q', '-b', '4096', device.path]);
      const folder = mountPoint();
      await execa('mount', [device.path, folder]);
      await writeFile(join(folder, 'below'), files);
      await execa('umount', [folder]);
    }
    await forkOverlay(low, [high]);
    await forkOverlay(high, [file('live')]);
    const frozen = targets.overlay(base, high, { readOnly: true });
    {
      await using shown = await createDevice({ target: frozen });
      expect(shown.readOnly).toBe(true);
      await using device = await createDevice({
        target: targets.overlay(frozen, guest, { create: true }),
      });
      const folder = mountPoint();
      await execa('mount', [device.path, folder]);
      await writeFile(join(folder, 'own'), files);
      expect((await readFile(join(folder, 'below'))).equals(files)).toBe(true);
      await device.fork([file('elsewhere/child')]);
      await execa('umount', [folder]);
      await execa('e2fsck', ['-f', '-n', device.path]);
      await execa('e2fsck', ['-f', '-n', shown.path]);
    }
    expect((await flattenOverlay(high, { prune: true })).removed).toEqual([low]);
    await using device = await createDevice({
      target: targets.overlay(targets.overlay(base, high), file('elsewhere/child')),
    });
    await fioVerify(device, ['--size=8M', '--offset=24M']);
    await using again = await createDevice({ target: targets.overlay(frozen, guest) });
    await execa('e2fsck', ['-f', '-n', again.path]);
  });

  test('a disk reads the same on another base, and its old base may change', async () => {
    const [old, next] = [sparseImage(16 * MIB), sparseImage(16 * MIB)];
    writeFileSync(old, Buffer.alloc(MIB, 1), { flag: 'r+' });
    writeFileSync(next, Buffer.alloc(2 * MIB, 2), { flag: 'r+' });
    const layer = join(dirname(old), 'layer');
    const from = targets.file(old);
    await createOverlay(from, layer);
    const contents = async (image: string) => {
      await using device = await createDevice({
        target: targets.overlay(targets.file(image), layer),
      });
      const { stdout } = await execa('sha256sum', [device.path]);
      return stdout.split(' ')[0];
    };
    const before = await contents(old);
    const done = await rebaseOverlay(layer, targets.file(next), { from });
    expect(done).toEqual({ copied: MIB, zeros: MIB });
    writeFileSync(old, Buffer.alloc(MIB, 3), { flag: 'r+' });
    expect(await contents(next)).toBe(before);
    // The new base lies in another folder than the layer, which it names.
    const served = createDevice({ target: targets.file(next) });
    await expect(served).rejects.toThrow(layer);
    expect(readFileSync(next).subarray(0, MIB).equals(Buffer.alloc(MIB, 2))).toBe(true);
  });
});
