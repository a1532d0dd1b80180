import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { execa } from 'execa';
import { afterEach, expect, test, vi } from 'vitest';

import {
  createDevice,
  createOverlay,
  deleteDevice,
  forkOverlay,
  getDeviceInfo,
  overlayInfo,
  targets,
} from '../../src/index.ts';
import { expectBytes, readBytes, writeBytes } from './bytes.ts';
import { carries, mountPoint } from './filesystem.ts';
import { fioVerify } from './fio.ts';
import { randomImage, sparseImage, temporaryFolder } from './image.ts';
import { CYCLES, endLoad, startLoad } from './load.ts';
import { expectNoDevices, need, withUblk } from './machine.ts';
import { startServer } from './server.ts';

type Server = Awaited<ReturnType<typeof startServer>>['server'];

const MIB = 1024 * 1024;

/** Kills the server of device 0; answers the next server. */
async function killAndRecover(server: Server, words: readonly string[]) {
  server.kill('SIGKILL');
  await server;
  await vi.waitFor(async () => expect((await getDeviceInfo(0)).state).toBe('quiesced'), {
    timeout: 60_000,
  });
  return await startServer('recover', '0', ...words);
}

/** What servers have left in memory for the next ones. */
function histories(): string[] {
  const folders = ['/run/ublk', '/dev/shm'].filter((folder) => existsSync(folder));
  return folders
    .flatMap((folder) => readdirSync(folder))
    .filter((name) => name.startsWith('overlay-'));
}

withUblk('an overlay', () => {
  afterEach(expectNoDevices);

  test('carries a file system, and its base stays as it was', async () => {
    const path = sparseImage(96 * MIB);
    const base = targets.file(path);
    const layer = join(dirname(path), 'vm.layer');
    {
      await using device = await createDevice({
        target: targets.overlay(base, layer, { create: true }),
        queues: 2,
      });
      expect(device).toMatchObject({ size: 96 * MIB, logicalBlockSize: 4096, readOnly: false });
      expect(await carries(device, ['mkfs.ext4', '-q'], ['e2fsck', '-f', '-n'])).toBe(true);
    }
    expect(statSync(path).blocks).toBe(0);
    expect(histories()).toEqual([]);
    await using again = await createDevice({ target: targets.overlay(base, layer) });
    await execa('e2fsck', ['-f', '-n', again.path]);
  });

  test('reads its base, and keeps what fio writes', async () => {
    const { path, bytes } = randomImage(32 * MIB);
    const layer = join(dirname(path), 'vm.layer');
    await using device = await createDevice({
      target: targets.overlay(targets.file(path), layer, { create: true }),
    });
    expectBytes(await readBytes(device), bytes);
    await fioVerify(device, ['--fsync=16']);
    expectBytes(await readBytes(device, 16 * MIB), bytes.subarray(16 * MIB));
    await execa('blkdiscard', [device.path]);
    expect((await readBytes(device)).every((byte) => byte === 0)).toBe(true);
    expect(readFileSync(path).equals(bytes)).toBe(true);
  });

  test('gives the space of what was discarded back', async () => {
    const path = sparseImage(64 * MIB);
    const layer = join(dirname(path), 'vm.layer');
    await using device = await createDevice({
      target: targets.overlay(targets.file(path), layer, { create: true }),
    });
    await writeBytes(device, 0, Buffer.alloc(48 * MIB, 7));
    const flush = async () => {
      const file = await open(device.path, 'r+');
      await file.sync();
      await file.close();
    };
    await flush();
    const full = statSync(layer).blocks * 512;
    expect(full).toBeGreaterThan(48 * MIB);
    await execa('blkdiscard', [device.path]);
    // The record becomes durable with the first, and the space is given back with the second.
    await flush();
    await writeBytes(device, 0, Buffer.alloc(4096, 1));
    await flush();
    expect(statSync(layer).blocks * 512).toBeLessThan(full - 0.95 * 48 * MIB);
  });

  const life = { timeout: 120_000 * CYCLES + 180_000 };
  test('keeps new blocks, answered and not flushed, of a killed server', life, async (context) => {
    await need(context, 'USER_RECOVERY_REISSUE');
    const path = sparseImage(4 * MIB);
    const words = ['overlay', path, join(dirname(path), 'vm.layer')];
    const device = { path: '/dev/ublkb0', size: 4 * MIB };
    const expected = Buffer.alloc(4 * MIB);
    let { server } = await startServer('add', ...words, '--create', '--recovery', 'reissue');
    for (let kill = 0; kill < 2; kill += 1) {
      // Without a flush: the history alone has the places.
      await writeBytes(device, kill * MIB, Buffer.alloc(64 * 1024, kill + 1));
      expected.fill(kill + 1, kill * MIB, kill * MIB + 64 * 1024);
      ({ server } = await killAndRecover(server, words));
      expectBytes(await readBytes(device), expected);
    }
    server.kill('SIGTERM');
    await server;
    await deleteDevice(0);
  });

  test('loses no answered write when its server is killed under load', life, async (context) => {
    await need(context, 'USER_RECOVERY_REISSUE');
    const path = sparseImage(96 * MIB);
    const layer = join(dirname(path), 'vm.layer');
    const folder = mountPoint();
    const words = ['overlay', path, layer];
    const shape = ['--create', '--queues', '2', '--recovery', 'reissue'];
    let { server } = await startServer('add', ...words, ...shape);
    await execa('mkfs.ext4', ['-q', '/dev/ublkb0']);
    await execa('mount', ['/dev/ublkb0', folder]);
    const load = startLoad(join(folder, 'data'), '--fsync=64');
    const written = async () => {
      const [, , , , , , sectors] = readFileSync('/sys/block/ublkb0/stat', 'utf8')
        .trim()
        .split(/\s+/);
      return Number(sectors);
    };
    for (let cycle = 0; cycle < CYCLES; cycle += 1) {
      const before = await written();
      await vi.waitFor(async () => expect(await written()).toBeGreaterThan(before + 2000), {
        timeout: 60_000,
      });
      ({ server } = await killAndRecover(server, words));
    }
    await endLoad(load);
    await execa('umount', [folder]);
    server.kill('SIGTERM');
    expect((await server).exitCode).toBe(0);
    await deleteDevice(0);
    await using device = await createDevice({ target: targets.overlay(targets.file(path), layer) });
    await execa('e2fsck', ['-f', '-n', device.path]);
  });

  test('is forked while nobody serves it, into disks that differ', async () => {
    const { path, bytes } = randomImage(8 * MIB);
    const folder = temporaryFolder();
    const [golden, ...children] = ['golden', 'a', 'b'].map((name) => join(folder, `${name}.layer`));
    const base = targets.file(path);
    await createOverlay(base, golden!);
    const expected = Buffer.from(bytes);
    {
      await using device = await createDevice({ target: targets.overlay(base, golden!) });
      await writeBytes(device, 64 * 1024, Buffer.alloc(64 * 1024, 1));
      expected.fill(1, 64 * 1024, 128 * 1024);
      await expect(forkOverlay(golden!, children)).rejects.toMatchObject({ code: 'ERR_UBLK_BUSY' });
    }
    await forkOverlay(golden!, children);
    await expect(createDevice({ target: targets.overlay(base, golden!) })).rejects.toThrow(
      /is frozen/,
    );
    const serve = (layer: string) => createDevice({ target: targets.overlay(base, layer) });
    await using a = await serve(children[0]!);
    await using b = await serve(children[1]!);
    for (const [device, byte] of [
      [a, 2],
      [b, 3],
    ] as const) {
      expectBytes(await readBytes(device), expected);
      await writeBytes(device, 96 * 1024, Buffer.alloc(64 * 1024, byte));
    }
    for (const [device, byte] of [
      [a, 2],
      [b, 3],
    ] as const) {
      const own = Buffer.from(expected).fill(byte, 96 * 1024, 160 * 1024);
      expectBytes(await readBytes(device), own);
    }
    await a.close();
    const layers = await overlayInfo(children[0]!);
    expect(layers.map(({ frozen, stored }) => [frozen, stored])).toEqual([
      [false, 64 * 1024],
      [true, 64 * 1024],
    ]);
  });
});
