import { readFileSync, writeFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { execa } from 'execa';
import { afterEach, expect, test, vi } from 'vitest';

import {
  createDevice,
  createOverlay,
  deleteDevice,
  getDeviceInfo,
  overlayInfo,
  targets,
} from '../../src/index.ts';
import { expectBytes, readBytes, writeBytes } from './bytes.ts';
import { carries, mountPoint } from './filesystem.ts';
import { fioVerify } from './fio.ts';
import { randomImage, sparseImage } from './image.ts';
import { CYCLES, endLoad, startLoad } from './load.ts';
import { expectNoDevices, need, withUblk } from './machine.ts';
import { startServer } from './server.ts';

const MIB = 1024 * 1024;
/** Requests that begin and end in the middle of blocks of 4 KiB. */
const SECTORS = ['--bssplit=512/50:1536/20:4k/20:10k/10', '--blockalign=512'];

/** The first sector of a disk with one partition of Linux; in sectors. */
function partitionTable(start: number, length: number): Buffer {
  const sector = Buffer.alloc(512);
  sector[446 + 4] = 0x83;
  sector.writeUInt32LE(start, 446 + 8);
  sector.writeUInt32LE(length, 446 + 12);
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}

withUblk('an overlay with logical blocks of 512 bytes', () => {
  afterEach(expectNoDevices);

  test('carries file systems of smaller blocks than its layers have', async () => {
    const path = sparseImage(64 * MIB);
    const layer = join(dirname(path), 'vm.layer');
    const disk = targets.overlay(targets.file(path), layer, {
      create: true,
      logicalBlockSize: 512,
    });
    {
      await using device = await createDevice({ target: disk });
      expect(device.logicalBlockSize).toBe(512);
      const mkfs = ['mkfs.ext4', '-q', '-b', '1024'] as const;
      expect(await carries(device, mkfs, ['e2fsck', '-f', '-n'])).toBe(true);
    }
    // The disk is remembered to have such blocks.
    await using again = await createDevice({ target: targets.overlay(targets.file(path), layer) });
    expect(again.logicalBlockSize).toBe(512);
    await execa('e2fsck', ['-f', '-n', again.path]);
  });

  test('carries a FAT of its base, which cannot be mounted from larger blocks', async () => {
    const path = sparseImage(64 * MIB);
    await execa('mkfs.vfat', ['-S', '512', path]);
    const overlay = (name: string, logicalBlockSize?: number) => {
      const layer = join(dirname(path), name);
      return targets.overlay(targets.file(path), layer, { create: true, logicalBlockSize });
    };
    {
      await using device = await createDevice({ target: overlay('large.layer') });
      const mounted = execa('mount', ['-t', 'vfat', device.path, mountPoint()]);
      await expect(mounted).rejects.toThrow(/exit code 32/);
    }
    await using device = await createDevice({ target: overlay('vm.layer', 512) });
    expect(await carries(device, ['true'], ['fsck.vfat', '-n'])).toBe(true);
  });

  test('has the partitions of its base, wherever they begin', async () => {
    const path = sparseImage(48 * MIB);
    const base = targets.file(path, { logicalBlockSize: 512 });
    const partitioned = async (folder: string, layer?: string) => {
      const target = layer === undefined ? base : targets.overlay(base, layer);
      await using device = await createDevice({ target });
      const partition = `${device.path}p1`;
      await vi.waitFor(async () => await execa('blockdev', ['--getsz', partition]), 60_000);
      if (layer === undefined) await execa('mkfs.ext4', ['-q', '-b', '1024', partition]);
      await execa('mount', [partition, folder]);
      await writeFile(join(folder, layer === undefined ? 'below' : 'own'), Buffer.alloc(MIB, 7));
      const below = await readFile(join(folder, 'below'));
      await execa('umount', [folder]);
      await execa('e2fsck', ['-f', '-n', partition]);
      return below.equals(Buffer.alloc(MIB, 7));
    };
    // As old partition tables have it: from sector 63 on.
    writeFileSync(path, partitionTable(63, (48 * MIB) / 512 - 63), { flag: 'r+' });
    const folder = mountPoint();
    expect(await partitioned(folder)).toBe(true);
    const before = readFileSync(path);
    const layer = join(dirname(path), 'vm.layer');
    await createOverlay(base, layer);
    expect((await overlayInfo(layer))[0]).toMatchObject({ logicalBlockSize: 512 });
    expect(await partitioned(folder, layer)).toBe(true);
    expect(readFileSync(path).equals(before)).toBe(true);
  });

  test('keeps what fio writes in sectors, and what lies around', async () => {
    const { path, bytes } = randomImage(24 * MIB);
    const layer = join(dirname(path), 'vm.layer');
    await createOverlay(targets.file(path), layer, { logicalBlockSize: 512 });
    await using device = await createDevice({
      target: targets.overlay(targets.file(path), layer),
      queues: 2,
    });
    const writes = [...SECTORS, '--size=4M', '--offset=1M', '--fsync=64'];
    await fioVerify(device, writes);
    const sector = Buffer.alloc(512, 9);
    await writeBytes(device, 20481 * 512, sector);
    sector.copy(bytes, 20481 * 512);
    await execa('blkdiscard', ['-z', '-o', '10487296', '-l', '9216', device.path]);
    bytes.fill(0, 10487296, 10487296 + 9216);
    expectBytes(await readBytes(device, 5 * MIB), bytes.subarray(5 * MIB));
  });

  const life = { timeout: 120_000 * CYCLES + 180_000 };
  test('loses no sector when its server is killed under load', life, async (context) => {
    await need(context, 'USER_RECOVERY_REISSUE');
    const path = sparseImage(8 * MIB);
    const layer = join(dirname(path), 'vm.layer');
    const words = ['overlay', path, layer];
    const shape = ['--create', '--block-size', '512', '--queues', '2', '--recovery', 'reissue'];
    let { server } = await startServer('add', ...words, ...shape);
    const load = startLoad('/dev/ublkb0', '--bs=512', '--size=8M', '--fsync=64');
    const writes = () =>
      Number(readFileSync('/sys/block/ublkb0/stat', 'utf8').trim().split(/\s+/)[4]);
    for (let cycle = 0; cycle < CYCLES; cycle += 1) {
      const before = writes();
      await vi.waitFor(() => expect(writes()).toBeGreaterThan(before + 2000), 60_000);
      server.kill('SIGKILL');
      await server;
      await vi.waitFor(async () => expect((await getDeviceInfo(0)).state).toBe('quiesced'), 60_000);
      ({ server } = await startServer('recover', '0', ...words));
    }
    const before = writes();
    await vi.waitFor(() => expect(writes()).toBeGreaterThan(before + 2000), 60_000);
    await endLoad(load);
    server.kill('SIGTERM');
    expect((await server).exitCode).toBe(0);
    await deleteDevice(0);
  });
});
