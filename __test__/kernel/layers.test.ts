import { randomBytes } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';

import { execa } from 'execa';
import { afterEach, describe, expect, test } from 'vitest';

import { createDevice, targets, type Device, type DeviceOptions } from '../../src/index.ts';
import { writeBytes } from './bytes.ts';
import { fleet, NO_TROUBLE } from './fleet.ts';
import { carries } from './filesystem.ts';
import { folderOfTests, sparseImage, sparseImages } from './image.ts';
import { expectNoDevices, withUblk } from './machine.ts';
import { modesOf, type Mode } from './modes.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

const LAYERED = modesOf('auto', 'register', 'copy');

/** What a device should hold, chunk by chunk from its images. */
function interleaved(paths: string[], chunk: number, size: number): Buffer {
  const contents = paths.map((path) => readFileSync(path));
  const chunks = Array.from({ length: size / chunk }, (_, index) => {
    const place = Math.floor(index / paths.length) * chunk;
    return contents[index % paths.length]!.subarray(place, place + chunk);
  });
  return Buffer.concat(chunks);
}

/** In which order a slow read and the writes after it end. */
async function orderOf(device: Device): Promise<string[]> {
  await using file = await open(device.path, 'r+');
  const order: string[] = [];
  // Where udev does not look, whose reads wait too.
  const buffer = Buffer.alloc(4 * KIB);
  const read = file.read(buffer, 0, 4 * KIB, 3 * MIB).then(() => order.push('read'));
  await file.write(randomBytes(64 * KIB), 0, 64 * KIB, 4 * MIB);
  await file.sync();
  order.push('written');
  await read;
  return order;
}

withUblk('a layer', () => {
  afterEach(expectNoDevices);

  describe('of stripes', () => {
    const folder = folderOfTests();
    const devices = fleet({
      modes: LAYERED,
      options(mode) {
        const name = String(LAYERED.indexOf(mode));
        const paths = sparseImages([16 * MIB, 16 * MIB, 16 * MIB], folder, name);
        return {
          target: targets.striped(paths.map((path) => targets.file(path))),
          queues: 2,
          ...mode,
        };
      },
    });
    test.for(LAYERED)('holds what fio wrote ($buffers, $exchange)', (mode, context) => {
      const outcome = devices.of(mode, context);
      expect(outcome.device.size).toBe(48 * MIB);
      expect(outcome.trouble).toEqual(NO_TROUBLE);
    });

    test('puts each chunk where device-mapper would', async () => {
      const paths = sparseImages([2 * MIB, 2 * MIB + 5 * KIB, 3 * MIB]);
      const chunk = 16 * KIB;
      const target = targets.striped(
        paths.map((path) => targets.file(path)),
        { chunk },
      );
      await using device = await createDevice({ target });
      expect(device.size).toBe(6 * MIB);
      const bytes = randomBytes(device.size);
      await writeBytes(device, 0, bytes);
      await device.close();
      expect(interleaved(paths, chunk, bytes.length).equals(bytes)).toBe(true);
    });

    test('gives back the space of what is discarded, on every image', async () => {
      const paths = sparseImages([16 * MIB, 16 * MIB]);
      const target = targets.striped(paths.map((path) => targets.file(path)));
      await using device = await createDevice({ target });
      const bytes = randomBytes(32 * MIB);
      await writeBytes(device, 0, bytes);
      await execa('blkdiscard', ['--offset', '1M', '--length', '30M', device.path]);
      await device.close();
      bytes.fill(0, MIB, 31 * MIB);
      expect(interleaved(paths, 64 * KIB, bytes.length).equals(bytes)).toBe(true);
      for (const path of paths) expect(statSync(path).blocks * 512).toBeLessThan(2 * MIB);
    });

    test('carries a file system', async () => {
      const paths = sparseImages([32 * MIB, 32 * MIB]);
      const target = targets.striped(paths.map((path) => targets.file(path)));
      await using device = await createDevice({ target, queues: 2 });
      expect(await carries(device, ['mkfs.ext4', '-q'], ['e2fsck', '-f', '-n'])).toBe(true);
    });
  });

  describe('of targets one behind another', () => {
    const folder = folderOfTests();
    const devices = fleet({
      modes: LAYERED,
      options(mode) {
        const name = String(LAYERED.indexOf(mode));
        const paths = sparseImages([4 * MIB + 512, 6 * MIB, 20 * MIB], folder, name);
        return { target: targets.linear(paths.map((path) => targets.file(path))), ...mode };
      },
    });
    test.for(LAYERED)('holds what fio wrote ($buffers, $exchange)', (mode, context) => {
      expect(devices.of(mode, context).trouble).toEqual(NO_TROUBLE);
    });

    test('fails where one of them is broken, and only there', async () => {
      const [path = ''] = sparseImages([MIB]);
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

  describe.each(['per-io', 'batch'] as const)('that delays (%s)', (exchange) => {
    const folder = folderOfTests();
    const modes = LAYERED.filter((mode) => mode.exchange === exchange);
    const orders = new Map<Mode, string[]>();
    // All at once, since most of it is waiting; more would need more threads for files than Node has.
    const devices = fleet({
      modes,
      options(mode) {
        const path = sparseImage(8 * MIB, folder, `${modes.indexOf(mode)}.img`);
        return { target: targets.delay(targets.file(path), { readUs: 2_000_000 }), ...mode };
      },
      async work(ships) {
        const all = ships.map(async ({ mode, device }) => {
          orders.set(mode, await orderOf(device));
        });
        await Promise.all(all);
      },
    });
    test.for(modes)('lets requests overtake those that wait ($buffers)', (mode, context) => {
      devices.of(mode, context);
      expect(orders.get(mode)).toEqual(['written', 'read']);
    });
  });

  describe('that delays', () => {
    test('a target that touches nothing still delays', async () => {
      const delays = { readUs: 1000, writeUs: 1000 };
      const target = targets.delay(targets.null({ size: '1MiB' }), delays);
      await using device = await createDevice({ target });
      await execa('dd', [`if=${device.path}`, 'of=/dev/null', 'bs=64k', 'iflag=direct']);
      expect(device.stats().total).toMatchObject({ errors: 0 });
    });
  });
});
