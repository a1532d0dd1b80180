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
} from '../../src/index.ts';
import { servesOn } from '../progress.ts';
import { mountPoint } from './filesystem.ts';
import { PACKAGE } from './handler-program.ts';
import { sparseImage } from './image.ts';
import { CYCLES, endLoad, moreWritten, pause, startLoad } from './load.ts';
import { createOrSkip, expectNoDevices, need, withUblk } from './machine.ts';

const MIB = 1024 * 1024;

withUblk('a merge of a running disk', () => {
  afterEach(expectNoDevices);

  test.for(['per-io', 'batch'] as const)(
    'lets fio go on, gives the space back, and leaves whole disks: %s',
    { timeout: 300_000 },
    async (exchange, context) => {
      const path = sparseImage(128 * MIB);
      const base = targets.file(path);
      const layer = join(dirname(path), 'vm.layer');
      const target = targets.overlay(base, layer, { create: true });
      const folder = mountPoint();
      const child = join(dirname(path), 'child.layer');
      {
        await using device = await createOrSkip(context, { target, queues: 2, exchange });
        await execa('mkfs.ext4', ['-q', device.path]);
        await execa('mount', [device.path, folder]);
        const load = startLoad(join(folder, 'data'), '--fsync=64');
        for (let merge = 0; merge < 2; merge += 1) {
          const frozen = [];
          for (let snapshot = 0; snapshot < 3; snapshot += 1) {
            await servesOn(device);
            frozen.push((await device.snapshot()).path);
          }
          const { kept, removed } = await device.flatten({ prune: true, bytesPerSecond: '16MiB' });
          // The highest carries a child from now on, and is not merged again.
          expect({ kept, removed }).toEqual({ kept: [], removed: frozen.slice(0, 2).toReversed() });
          await servesOn(device);
          await forkOverlay(frozen[2]!, [`${child}${merge}`]);
        }
        await endLoad(load);
        await execa('umount', [folder]);
        expect(device.stats().total.errors).toBe(0);
        await execa('e2fsck', ['-f', '-n', device.path]);
      }
      expect(await overlayInfo(layer)).toHaveLength(3);
      for (const disk of [layer, `${child}0`, `${child}1`]) {
        await using served = await createDevice({ target: targets.overlay(base, disk) });
        // The journal of a file system that was forked while it was mounted.
        await execa('mount', [served.path, folder]);
        await execa('umount', [folder]);
        await execa('e2fsck', ['-f', '-n', served.path]);
      }
    },
  );

  const life = { timeout: 120_000 * CYCLES + 180_000 };
  test('may be killed at any time: the next server has the disk', life, async (context) => {
    await need(context, 'USER_RECOVERY_REISSUE');
    const path = sparseImage(96 * MIB);
    const layer = join(dirname(path), 'vm.layer');
    const target = targets.overlay(targets.file(path), layer, { create: true });
    const program = `
      import { createDevice, recoverDevice, targets } from ${JSON.stringify(PACKAGE)};
      const [path, layer] = ${JSON.stringify([path, layer])};
      const target = targets.overlay(targets.file(path), layer, { create: true });
      const device = process.argv[1] === '0'
        ? await createDevice({ target, queues: 2, recovery: 'reissue' })
        : await recoverDevice(0, { target });
      console.log(device.path);
      for (;;) {
        await device.snapshot();
        await device.snapshot();
        await device.flatten({ prune: true, bytesPerSecond: '8MiB' });
      }
    `;
    const start = async (round: number) => {
      const args = ['--input-type=module', '-e', program, String(round)];
      const server = execa('node', args, { reject: false });
      const lines = createInterface({ input: server.stdout })[Symbol.asyncIterator]();
      expect((await lines.next()).value).toBe('/dev/ublkb0');
      return { server };
    };
    let { server } = await start(0);
    const folder = mountPoint();
    await execa('mkfs.ext4', ['-q', '/dev/ublkb0']);
    await execa('mount', ['/dev/ublkb0', folder]);
    const load = startLoad(join(folder, 'data'), '--fsync=64');
    for (let cycle = 1; cycle <= 2 * CYCLES; cycle += 1) {
      await moreWritten('/dev/ublkb0', MIB);
      await pause(Math.random() * 2000);
      server.kill('SIGKILL');
      expect(await server).toMatchObject({ signal: 'SIGKILL', stderr: '' });
      await vi.waitFor(async () => expect((await getDeviceInfo(0)).state).toBe('quiesced'), {
        timeout: 60_000,
      });
      ({ server } = await start(cycle));
    }
    await moreWritten('/dev/ublkb0', MIB);
    await endLoad(load);
    await execa('umount', [folder]);
    server.kill('SIGKILL');
    await server;
    await deleteDevice(0);
    {
      await using device = await createDevice({ target });
      await execa('e2fsck', ['-f', '-n', device.path]);
      await device.flatten({ prune: true });
      await execa('e2fsck', ['-f', '-n', device.path]);
    }
    expect((await overlayInfo(layer)).length).toBeLessThanOrEqual(2);
  });
});
