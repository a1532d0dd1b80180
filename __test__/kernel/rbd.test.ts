import { randomBytes, randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { execa } from 'execa';
import { afterEach, describe, expect, test } from 'vitest';

import { createDevice, targets } from '../../src/index.ts';
import { clusterOfTests, noCeph } from '../ceph.ts';
import { servesOn } from '../progress.ts';
import { expectBytes, readBytes, writeBytes } from './bytes.ts';
import { carries } from './filesystem.ts';
import { fioVerify } from './fio.ts';
import { temporaryFolder } from './image.ts';
import { endLoad, startLoad } from './load.ts';
import { setting } from './look.ts';
import { expectNoDevices, withUblk } from './machine.ts';
import { startServer, ublk } from './server.ts';

const MIB = 1024 * 1024;
const MKFS = ['mkfs.ext4', '-qF'] as const;
const FSCK = ['fsck.ext4', '-fn'] as const;
/** A cluster in an emulated machine takes a minute to come up. */
const LONG = { timeout: 600_000 };

withUblk('an RBD target', () => {
  const where = noCeph === undefined ? '' : ` [${noCeph}]`;
  describe.skipIf(noCeph)(`on a Ceph cluster${where}`, () => {
    const ceph = clusterOfTests();
    afterEach(expectNoDevices);

    test('carries data and a file system, in several queues', LONG, async () => {
      const image = await ceph.image('64M');
      const target = targets.rbd(image, ceph.options);
      await using device = await createDevice({ target, queues: 2 });
      expect([device.size, device.buffers.mode]).toEqual([64 * MIB, 'copy']);
      expect(await setting(device, 'optimal_io_size')).toBe(String(4 * MIB));
      expect(await setting(device, 'discard_granularity')).toBe('65536');
      expect(await setting(device, 'write_cache')).toBe('write back');
      await fioVerify(device);
      expect(await carries(device, MKFS, FSCK)).toBe(true);
      await execa('blkdiscard', [device.path]);
      await execa('blkdiscard', ['-z', device.path]);
      const { flushes, discards, writeZeroes, errors } = device.stats().total;
      expect([flushes, discards, writeZeroes].every((count) => count > 0)).toBe(true);
      expect(errors).toBe(0);
    });

    test('goes on when the OSD is killed and started under a load', LONG, async () => {
      const image = await ceph.image('64M');
      await using device = await createDevice({ target: targets.rbd(image, ceph.options) });
      const load = startLoad(device.path);
      await servesOn(device);
      await ceph.cluster.killOsd();
      await ceph.cluster.startOsd();
      await servesOn(device);
      await endLoad(load);
      expect(device.stats().total.errors).toBe(0);
      expect(await carries(device, MKFS, FSCK)).toBe(true);
    });

    test('lies below a delay, a concatenation, and an overlay on a snapshot', LONG, async () => {
      const [one, two] = [await ceph.image('16M'), await ceph.image('16M')];
      const [first, second] = [one, two].map((image) => targets.rbd(image, ceph.options));
      const whole = targets.linear([targets.delay(first!, { readUs: 500 }), second!]);
      {
        await using device = await createDevice({ target: whole });
        await fioVerify(device, ['--offset=8M']);
        expect(device.stats().total.errors).toBe(0);
      }
      const folder = temporaryFolder();
      const [file, layer] = [join(folder, 'disk.img'), join(folder, 'vm.layer')];
      const bytes = randomBytes(16 * MIB);
      await writeFile(file, bytes);
      const image = `base-${randomUUID()}`;
      await ceph.rbd('import', file, image);
      await ceph.rbd('snap', 'create', `${image}@now`);
      const base = targets.rbd(image, { ...ceph.options, snapshot: 'now' });
      const target = targets.overlay(base, layer, { create: true });
      await using device = await createDevice({ target });
      await writeBytes(device, 65_536, bytes.subarray(0, 65_536));
      const changed = Buffer.from(bytes);
      bytes.copy(changed, 65_536, 0, 65_536);
      expectBytes(await readBytes(device), changed);
    });

    test('grows with the image, and not beyond', LONG, async () => {
      const image = await ceph.image('8M');
      await using device = await createDevice({ target: targets.rbd(image, ceph.options) });
      await expect(device.resize('16MiB')).rejects.toMatchObject({
        code: 'ERR_UBLK_BAD_BACKEND',
        message: expect.stringContaining(`holds ${8 * MIB} bytes`),
      });
      await ceph.rbd('resize', image, '--size', '16M');
      await device.resize('16MiB');
      await fioVerify(device, ['--offset=8M', '--size=8M']);
    });

    test('is served by the command, until a signal; recovered after a kill', LONG, async () => {
      const image = await ceph.image('16M');
      const { conf } = ceph.cluster;
      const words = [`rbd/${image}`, '--conf', conf, '--recovery', 'reissue'];
      let { server, path } = await startServer('add', 'rbd', ...words);
      expect(path).toContain('/dev/ublkb0');
      await execa('dd', ['if=/dev/zero', 'of=/dev/ublkb0', 'bs=1M', 'count=4', 'oflag=direct']);
      server.kill('SIGKILL');
      await server;
      ({ server, path } = await startServer('recover', '0'));
      await execa('dd', ['if=/dev/zero', 'of=/dev/ublkb0', 'bs=1M', 'count=4', 'oflag=direct']);
      const wrong = await ublk('add', 'rbd', image, '--conf', conf, '--connect-timeout', '60');
      expect(wrong.stderr).toContain('another client holds the exclusive lock');
      await ublk('stop', '0');
      expect((await server).exitCode).toBe(0);
      expect(await ceph.rbd('status', image)).not.toContain('watcher=');
    });
  });
});
