import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';

import { execa } from 'execa';
import { afterEach, expect, test, vi } from 'vitest';

import {
  createDevice,
  deleteDevice,
  forkOverlay,
  getDeviceInfo,
  overlayInfo,
  targets,
  type Device,
} from '../../src/index.ts';
import { readBytes, writeBytes } from './bytes.ts';
import { mountPoint } from './filesystem.ts';
import { PACKAGE } from './handler-program.ts';
import { sparseImage } from './image.ts';
import { CYCLES, endLoad, moreWritten, startLoad } from './load.ts';
import { expectNoDevices, need, withUblk } from './machine.ts';

const MIB = 1024 * 1024;
const SIZE = 128 * MIB;
const KEPT = randomBytes(3 * MIB);

/** How a file system is made, and checked once its log has been replayed by a mount. */
const FILE_SYSTEMS = [
  ['ext4', ['mkfs.ext4', '-q'], ['e2fsck', '-f', '-n']],
  ['xfs', ['mkfs.xfs', '-q'], ['xfs_repair', '-n']],
  ['btrfs', ['mkfs.btrfs', '-q'], ['btrfs', 'check']],
] as const;

/** Makes a file system and mounts it with a file that is durable. */
async function prepare(path: string, mkfs: readonly string[]): Promise<string> {
  await execa(mkfs[0]!, [...mkfs.slice(1), path]);
  const folder = mountPoint();
  await execa('mount', [path, folder]);
  writeFileSync(join(folder, 'kept'), KEPT);
  await execa('sync', ['-f', folder]);
  return folder;
}

/** A file system that was forked while it was in use mounts, as after a power cut, and is whole then. */
async function isWhole(path: string, check: readonly string[]): Promise<boolean> {
  const folder = mountPoint();
  await execa('mount', [path, folder]);
  const kept = readFileSync(join(folder, 'kept'));
  await execa('umount', [folder]);
  await execa(check[0]!, [...check.slice(1), path]);
  return kept.equals(KEPT);
}

withUblk('a fork of a running disk', () => {
  afterEach(expectNoDevices);

  test('is whole, and the disk goes on under fio', { timeout: 300_000 }, async () => {
    const [, mkfs, check] = FILE_SYSTEMS[0];
    const path = sparseImage(SIZE);
    const base = targets.file(path);
    const layer = join(dirname(path), 'vm.layer');
    const serve = (file: string) => createDevice({ target: targets.overlay(base, file) });
    await using device = await createDevice({
      target: targets.overlay(base, layer, { create: true }),
      queues: 2,
    });
    const folder = await prepare(device.path, mkfs);
    const load = startLoad(join(folder, 'data'), '--fsync=64');
    const forks = [];
    for (const name of ['a', 'b', 'c']) {
      await moreWritten(device.path, MIB);
      const children = [1, 2].map((at) => join(dirname(path), `${name}${at}.layer`));
      forks.push({ children, ...(await device.fork(children)) });
    }
    await moreWritten(device.path, MIB);
    await endLoad(load);
    await execa('umount', [folder]);
    await execa(check[0], [...check.slice(1), device.path]);
    for (const { children, generation, path: frozen } of forks) {
      for (const child of children) {
        await using served = await serve(child);
        expect(await isWhole(served.path, check)).toBe(true);
      }
      const [own, below] = await overlayInfo(children[0]!);
      expect(own!.stored).toBeGreaterThan(0);
      expect(below).toMatchObject({ path: frozen, generation, frozen: true, closed: true });
    }
    // What was frozen can be forked once more.
    const late = join(dirname(path), 'late.layer');
    await forkOverlay(forks[0]!.path, [late]);
    await using served = await serve(late);
    expect(await isWhole(served.path, check)).toBe(true);
    expect(new Set(forks.map(({ generation }) => generation)).size).toBe(3);
  });

  test('with each exchange, holds what was written before', async () => {
    const path = sparseImage(8 * MIB);
    const base = targets.file(path);
    for (const exchange of ['per-io', 'batch'] as const) {
      const layer = join(dirname(path), `${exchange}.layer`);
      await using device = await createDevice({
        target: targets.overlay(base, layer, { create: true }),
        exchange,
      });
      const fill = (disk: Device, byte: number) =>
        writeBytes(disk, 0, Buffer.alloc(64 * 1024, byte));
      const first = async (disk: Device) => [...new Set(await readBytes(disk, 0, 64 * 1024))];
      await fill(device, 1);
      const child = join(dirname(path), `${exchange}.child`);
      await device.fork([child], { path: join(dirname(path), `${exchange}.frozen`) });
      await fill(device, 2);
      await using served = await createDevice({ target: targets.overlay(base, child) });
      expect([await first(device), await first(served)]).toEqual([[2], [1]]);
      await fill(served, 3);
      expect([await first(device), await first(served)]).toEqual([[2], [3]]);
    }
  });

  const cycles = CYCLES > 1 ? FILE_SYSTEMS : FILE_SYSTEMS.slice(0, 1);
  test.for(cycles)(
    'survives kill -9 of its server in the middle of forks, with %s',
    { timeout: 240_000 * CYCLES + 180_000 },
    async ([name, mkfs, check], context) => {
      await need(context, 'USER_RECOVERY_REISSUE');
      const path = sparseImage(name === 'xfs' ? 320 * MIB : SIZE);
      const layer = join(dirname(path), 'vm.layer');
      const program = `
        import { createDevice, recoverDevice, targets } from ${JSON.stringify(PACKAGE)};
        const [path, layer] = ${JSON.stringify([path, layer])};
        const target = targets.overlay(targets.file(path), layer, { create: true });
        const device = process.argv[1] === '0'
          ? await createDevice({ target, queues: 2, recovery: 'reissue' })
          : await recoverDevice(0, { target });
        console.log(device.path);
        for await (const _ of process.stdin) break;
        for (let fork = 0; ; fork += 1) {
          const child = layer + '.child-' + process.argv[1] + '-' + fork;
          await device.fork([child]);
          console.log(child);
        }
      `;
      const start = async (round: number) => {
        const args = ['--input-type=module', '-e', program, String(round)];
        const server = execa('node', args, { reject: false });
        const lines = createInterface({ input: server.stdout })[Symbol.asyncIterator]();
        expect((await lines.next()).value).toBe('/dev/ublkb0');
        return { server, lines };
      };
      let { server, lines } = await start(0);
      const folder = await prepare('/dev/ublkb0', mkfs);
      const load = startLoad(join(folder, 'data'), '--fsync=64');
      const children = [];
      for (let cycle = 0; cycle < CYCLES; cycle += 1) {
        await moreWritten('/dev/ublkb0', MIB);
        server.stdin.write('go\n');
        const forks = 1 + Math.floor(Math.random() * 3);
        for (let fork = 0; fork < forks; fork += 1) children.push((await lines.next()).value!);
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 60));
        server.kill('SIGKILL');
        await server;
        await vi.waitFor(async () => expect((await getDeviceInfo(0)).state).toBe('quiesced'), {
          timeout: 60_000,
        });
        ({ server, lines } = await start(cycle + 1));
      }
      await moreWritten('/dev/ublkb0', MIB);
      await endLoad(load);
      await execa('umount', [folder]);
      server.kill('SIGTERM');
      await server;
      await deleteDevice(0);
      for (const file of [layer, ...children.slice(-4)]) {
        await using served = await createDevice({
          target: targets.overlay(targets.file(path), file),
        });
        expect({ file, whole: await isWhole(served.path, check) }).toEqual({ file, whole: true });
      }
    },
  );
});
