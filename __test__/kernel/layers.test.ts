import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';

import { execa } from 'execa';
import { afterEach, describe, expect, test } from 'vitest';

import { createDevice, targets, type BufferMode, type DeviceOptions } from '../../src/index.ts';
import { fioVerify } from './fio.ts';
import { temporaryFolder } from './image.ts';
import { createOrSkip, expectNoDevices, withUblk } from './machine.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

const BUFFERS: readonly BufferMode[] = ['auto', 'register', 'copy'];
const MODES = (['per-io', 'batch'] as const).flatMap((exchange) =>
  BUFFERS.map((buffers) => ({ exchange, buffers })),
);

/** Empty images of these sizes. */
function images(...sizes: number[]): string[] {
  const folder = temporaryFolder();
  return sizes.map((size, index) => {
    const path = join(folder, `${index}.img`);
    writeFileSync(path, '');
    truncateSync(path, size);
    return path;
  });
}

/** What a device should hold, chunk by chunk from its images. */
function interleaved(paths: string[], chunk: number, size: number): Buffer {
  const contents = paths.map((path) => readFileSync(path));
  const chunks = Array.from({ length: size / chunk }, (_, index) => {
    const place = Math.floor(index / paths.length) * chunk;
    return contents[index % paths.length]!.subarray(place, place + chunk);
  });
  return Buffer.concat(chunks);
}

withUblk('a layer', () => {
  afterEach(expectNoDevices);

  describe('of stripes', () => {
    test.for(MODES)('holds what fio wrote ($buffers, $exchange)', async (mode, context) => {
      const paths = images(16 * MIB, 16 * MIB, 16 * MIB);
      const target = targets.striped(paths.map((path) => targets.file(path)));
      await using device = await createOrSkip(context, { target, queues: 2, ...mode });
      expect(device.size).toBe(48 * MIB);
      await fioVerify(device);
      expect(device.stats().total.errors).toBe(0);
    });

    test('puts each chunk where device-mapper would', async () => {
      const paths = images(2 * MIB, 2 * MIB + 5 * KIB, 3 * MIB);
      const chunk = 16 * KIB;
      const target = targets.striped(
        paths.map((path) => targets.file(path)),
        { chunk },
      );
      await using device = await createDevice({ target });
      expect(device.size).toBe(6 * MIB);
      const bytes = randomBytes(device.size);
      await execa('dd', [`of=${device.path}`, 'bs=1M', 'oflag=direct'], { input: bytes });
      await device.close();
      expect(interleaved(paths, chunk, bytes.length).equals(bytes)).toBe(true);
    });

    test('gives back the space of what is discarded, on every image', async () => {
      const paths = images(16 * MIB, 16 * MIB);
      const target = targets.striped(paths.map((path) => targets.file(path)));
      await using device = await createDevice({ target });
      const bytes = randomBytes(32 * MIB);
      await execa('dd', [`of=${device.path}`, 'bs=1M', 'oflag=direct'], { input: bytes });
      await execa('blkdiscard', ['--offset', '1M', '--length', '30M', device.path]);
      await device.close();
      bytes.fill(0, MIB, 31 * MIB);
      expect(interleaved(paths, 64 * KIB, bytes.length).equals(bytes)).toBe(true);
      for (const path of paths) expect(statSync(path).blocks * 512).toBeLessThan(2 * MIB);
    });

    test('carries a file system', async () => {
      const paths = images(32 * MIB, 32 * MIB);
      const target = targets.striped(paths.map((path) => targets.file(path)));
      await using device = await createDevice({ target, queues: 2 });
      const mountPoint = join(temporaryFolder(), 'mnt');
      mkdirSync(mountPoint);
      await execa('mkfs.ext4', ['-q', device.path]);
      await execa('mount', [device.path, mountPoint]);
      const bytes = randomBytes(20 * MIB);
      writeFileSync(join(mountPoint, 'file'), bytes);
      await execa('umount', [mountPoint]);
      await execa('mount', ['-o', 'ro', device.path, mountPoint]);
      const kept = readFileSync(join(mountPoint, 'file'));
      await execa('umount', [mountPoint]);
      expect(kept.equals(bytes)).toBe(true);
      await execa('e2fsck', ['-f', '-n', device.path]);
    });
  });

  describe('of targets one behind another', () => {
    test.for(MODES)('holds what fio wrote ($buffers, $exchange)', async (mode, context) => {
      const paths = images(7 * MIB + 512, 9 * MIB, 20 * MIB);
      const target = targets.linear(paths.map((path) => targets.file(path)));
      await using device = await createOrSkip(context, { target, ...mode });
      await fioVerify(device);
      expect(device.stats().total.errors).toBe(0);
    });

    test('fails where one of them is broken, and only there', async () => {
      const [path = ''] = images(MIB);
      const broken = targets.error({ size: '1MiB' });
      const options: DeviceOptions = { target: targets.linear([targets.file(path), broken]) };
      await using device = await createDevice(options);
      const read = (megabyte: number) =>
        execa('dd', [
          `if=${device.path}`,
          'of=/dev/null',
          'bs=1M',
          'count=1',
          'iflag=direct',
          `skip=${megabyte}`,
        ]);
      await read(0);
      await expect(read(1)).rejects.toThrow('Input/output error');
    });
  });

  describe('that delays', () => {
    test.for(MODES)(
      'lets requests overtake those that wait ($buffers, $exchange)',
      async (mode, context) => {
        const [path = ''] = images(8 * MIB);
        const target = targets.delay(targets.file(path), { readUs: 2_000_000 });
        await using device = await createOrSkip(context, { target, ...mode });
        await using file = await open(device.path, 'r+');
        const order: string[] = [];
        // Where udev does not look, whose reads wait too.
        const buffer = Buffer.alloc(4 * KIB);
        const read = file.read(buffer, 0, 4 * KIB, 3 * MIB).then(() => order.push('read'));
        await file.write(randomBytes(64 * KIB), 0, 64 * KIB, 4 * MIB);
        await file.sync();
        order.push('written');
        await read;
        expect(order).toEqual(['written', 'read']);
      },
    );

    test('a target that touches nothing still delays', async () => {
      const delays = { readUs: 1000, writeUs: 1000 };
      const target = targets.delay(targets.null({ size: '1MiB' }), delays);
      await using device = await createDevice({ target });
      await execa('dd', [`if=${device.path}`, 'of=/dev/null', 'bs=64k', 'iflag=direct']);
      expect(device.stats().total).toMatchObject({ errors: 0 });
    });
  });
});
