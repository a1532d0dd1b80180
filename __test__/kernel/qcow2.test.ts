import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { execa } from 'execa';
import { afterEach, expect, test, vi } from 'vitest';

import {
  createDevice,
  createOverlay,
  deleteDevice,
  exportOverlay,
  flattenOverlay,
  forkOverlay,
  getDeviceInfo,
  overlayCheck,
  overlayDiff,
  overlayTree,
  targets,
} from '../../src/index.ts';
import { readBytes } from './bytes.ts';
import { mountPoint } from './filesystem.ts';
import { fioVerify } from './fio.ts';
import { sparseImage } from './image.ts';
import { expectNoDevices, need, withUblk } from './machine.ts';
import { startServer, ublk } from './server.ts';

const MIB = 1024 * 1024;

/** A raw file system at the bottom, and two images above that have changed some of it. */
async function chain() {
  const raw = sparseImage(48 * MIB);
  const file = (name: string) => join(dirname(raw), name);
  const [middle, top] = [file('middle.qcow2'), file('top.qcow2')];
  await execa('mkfs.ext4', ['-q', '-b', '4096', raw]);
  for (const [image, backing, format, options] of [
    [middle, raw, 'raw', 'cluster_size=4k'],
    [top, middle, 'qcow2', 'cluster_size=64k'],
  ] as const) {
    const create = ['create', '-q', '-f', 'qcow2', '-o', options, '-b', backing, '-F', format];
    await execa('qemu-img', [...create, image, '64M']);
  }
  const write = (image: string, ...commands: string[]) =>
    execa('qemu-io', [...commands.flatMap((one) => ['-c', one]), image]);
  await write(middle, 'write -P 5 30M 1000k', 'write -z 32M 100k', 'write -P 1 33000k 4k');
  await write(top, 'write -P 6 30500k 64k', 'write -P 7 60M 1M');
  return { raw, middle, top, file };
}

/** A checksum of all bytes of a device, past the page cache. */
async function checksum(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readBytes({ path }))
    .digest('hex');
}

withUblk('a qcow2 image', () => {
  afterEach(expectNoDevices);

  test('is read as qemu-img reads it, and refuses writes', async () => {
    const { top, file } = await chain();
    await execa('qemu-img', ['convert', '-O', 'raw', top, file('converted')]);
    await using device = await createDevice({ target: targets.qcow2(top) });
    expect(device).toMatchObject({ size: 64 * MIB, readOnly: true });
    const dd = [`if=${device.path}`, `of=${file('read')}`, 'iflag=direct', 'bs=1M', 'status=none'];
    await execa('dd', dd);
    await execa('cmp', [file('read'), file('converted')]);
    const refused = await execa('dd', ['if=/dev/zero', `of=${device.path}`, 'bs=4k', 'count=1'], {
      reject: false,
    });
    expect(refused.stderr).toMatch(/Operation not permitted|Read-only/);
    await execa('qemu-io', ['-c', 'write 0 4k', top], { reject: false }).then(({ exitCode }) =>
      expect(exitCode).not.toBe(0),
    );
  });

  test('is the base of a disk: a file system, verified writes, a fork while it is mounted', async () => {
    const { top, file } = await chain();
    const base = targets.qcow2(top);
    const serve = (name: string, create = false) =>
      createDevice({ target: targets.overlay(base, file(name), { create }) });
    {
      await using device = await serve('vm.layer', true);
      // The chain carries a file system, which takes files.
      const folder = mountPoint();
      await execa('mount', [device.path, folder]);
      await writeFile(join(folder, 'file'), Buffer.alloc(3 * MIB, 'ublk'));
      await execa('sync', ['-f', folder]);
      const { generation } = await device.fork([file('child.layer')]);
      expect(generation).toBeGreaterThan(0);
      await writeFile(join(folder, 'file'), Buffer.alloc(3 * MIB, 'later'));
      await execa('umount', [folder]);
      await execa('e2fsck', ['-f', '-n', device.path]);
    }
    await using device = await serve('child.layer');
    // What the fork has of the file system is replayed from its journal, and is whole.
    const folder = mountPoint();
    await execa('mount', [device.path, folder]);
    const kept = await readFile(join(folder, 'file'));
    expect(kept.equals(Buffer.alloc(3 * MIB, 'ublk'))).toBe(true);
    await execa('umount', [folder]);
    await execa('e2fsck', ['-f', '-n', device.path]);
    await fioVerify(device, ['--size=8M', '--offset=30M']);
  });

  test('is the base of disks without a server: every verb, and every file is guarded', async () => {
    const { top, raw, file } = await chain();
    const base = targets.qcow2(top);
    const [low, high] = [file('low.layer'), file('high.layer')];
    const { stderr, exitCode } = await ublk('overlay', 'create', `qcow2:${top}`, low);
    expect({ stderr, exitCode }).toMatchObject({ exitCode: 0 });
    const write = async (layer: string, offset: string) => {
      await using device = await createDevice({ target: targets.overlay(base, layer) });
      const place = [`of=${device.path}`, `seek=${offset}`, 'oflag=direct,seek_bytes'];
      await execa('dd', ['if=/dev/urandom', ...place, 'bs=64k', 'count=1', 'status=none']);
    };
    await write(low, '31M');
    await forkOverlay(low, [high]);
    await write(high, '61M');
    const changes = [{ offset: 61 * MIB, length: 65536, zeros: false }];
    expect(await overlayDiff(high, { from: low })).toEqual(changes);
    expect((await overlayCheck(high, { base })).problems).toEqual([]);
    await exportOverlay(base, high, file('out.img'));
    await flattenOverlay(high);
    {
      await using device = await createDevice({ target: targets.overlay(base, high) });
      await execa('cmp', [file('out.img'), device.path]);
    }
    const roots = await overlayTree(dirname(raw));
    expect(roots.map((root) => [root.base, root.children.length])).toEqual([[top, 2]]);
    for (const part of [raw, top]) {
      await expect(createDevice({ target: targets.file(part) })).rejects.toThrow(low);
    }
    await execa('qemu-io', ['-c', 'write -P 1 0 4k', top]);
    const target = targets.overlay(base, high);
    await expect(createDevice({ target })).rejects.toThrow(/modified since/);
  });

  test('stays the base of a disk whose server was killed, and so does a frozen layer on it', async (context) => {
    await need(context, 'USER_RECOVERY_REISSUE');
    const { top, file } = await chain();
    const base = targets.qcow2(top);
    await createOverlay(base, file('low.layer'));
    await forkOverlay(file('low.layer'), [file('live.layer')]);
    const below = `overlay:${file('low.layer')}:qcow2:${top}`;
    const words = ['overlay', below, file('vm.layer'), '--create', '--recovery', 'reissue'];
    const first = await startServer('add', ...words);
    const before = await checksum('/dev/ublkb0');
    first.server.kill('SIGKILL');
    await first.server;
    await vi.waitFor(async () => expect((await getDeviceInfo(0)).state).toBe('quiesced'), {
      timeout: 60_000,
    });
    // As recorded.
    const { server } = await startServer('recover', '0');
    expect(await checksum('/dev/ublkb0')).toBe(before);
    server.kill('SIGTERM');
    await server;
    await deleteDevice(0);
  });
});
