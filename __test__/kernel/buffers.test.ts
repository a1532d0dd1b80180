import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { truncate } from 'node:fs/promises';
import { join } from 'node:path';

import { execa } from 'execa';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';

import { targets, type BufferMode, type DeviceOptions } from '../../src/index.ts';
import { fioVerify } from './fio.ts';
import { temporaryFolder } from './image.ts';
import { createOrSkip, expectNoDevices, isTestMachine, withUblk } from './machine.ts';

const MIB = 1024 * 1024;
const SIZE = 64 * MIB;
/** What fio needs for 32 requests of up to 1 MiB, and to spare. */
const MEMORY = 48 * MIB;
const HUGE_PAGES = 24;

const BASES: BufferMode[] = ['auto', 'register', 'user-copy', 'get-data', 'copy'];

/** What `shared` can be beside, in every exchange that allows it. */
const MODES = (['per-io', 'batch'] as const).flatMap((exchange) =>
  BASES.filter((base) => exchange === 'per-io' || base !== 'get-data').map((base) => ({
    exchange,
    base,
  })),
);

function image(): Promise<string> {
  const path = join(temporaryFolder(), 'disk.img');
  writeFileSync(path, '');
  return truncate(path, SIZE).then(() => path);
}

withUblk('shared memory', () => {
  afterEach(expectNoDevices);

  describe('of a tmpfs', () => {
    const memory = '/dev/shm/ublk-clients';
    beforeAll(async () => {
      writeFileSync(memory, '');
      await truncate(memory, MEMORY);
    });
    afterAll(() => rmSync(memory));

    test.for(MODES)('carries what fio wrote (over $base, $exchange)', async (mode, context) => {
      const { base, exchange } = mode;
      const target = targets.file(await image());
      const options: DeviceOptions = { target, exchange, buffers: ['shared', base], queues: 2 };
      await using device = await createOrSkip(context, options);
      expect(device.buffers).toMatchObject({ mode: base, shared: true });
      await using shared = await device.share(memory);
      expect(shared.index).toBe(0);
      await fioVerify(device, [`--mem=mmapshared:${memory}`]);
      const { zeroCopyBytes, readBytes, writeBytes, errors } = device.stats().total;
      expect(errors).toBe(0);
      // What others read, udev among them, is copied.
      expect(zeroCopyBytes).toBeGreaterThan((readBytes + writeBytes) * 0.9);
    });

    test('comes and goes while clients are at work', async (context) => {
      const target = targets.file(await image());
      const buffers: BufferMode[] = ['shared', 'copy'];
      await using device = await createOrSkip(context, { target, buffers });
      const pause = () => new Promise((resolve) => setTimeout(resolve, 50));
      const fio = { working: true };
      const worked = fioVerify(device, [`--mem=mmapshared:${memory}`]).finally(() => {
        fio.working = false;
      });
      while (fio.working) {
        const shared = await device.share(memory);
        await pause();
        await shared.close();
        await pause();
      }
      await worked;
      const { zeroCopyBytes, copiedBytes, errors } = device.stats().total;
      expect(errors).toBe(0);
      expect(zeroCopyBytes).toBeGreaterThan(0);
      expect(copiedBytes).toBeGreaterThan(0);
    });

    test('that the server must not change serves writes only', async (context) => {
      const target = targets.file(await image());
      const buffers: BufferMode[] = ['shared', 'copy'];
      await using device = await createOrSkip(context, { target, buffers });
      await using _shared = await device.share(memory, { readOnly: true });
      await fioVerify(device, [`--mem=mmapshared:${memory}`]);
      const { zeroCopyBytes, writeBytes, copiedBytes, readBytes } = device.stats().total;
      expect([zeroCopyBytes, copiedBytes]).toEqual([writeBytes, readBytes]);
    });
  });

  describe.runIf(isTestMachine)('of huge pages', () => {
    const folder = '/run/ublk-huge';
    beforeAll(async () => {
      writeFileSync('/proc/sys/vm/nr_hugepages', String(HUGE_PAGES));
      mkdirSync(folder);
      await execa('mount', ['-t', 'hugetlbfs', 'none', folder]);
    });
    afterAll(async () => {
      await execa('umount', [folder]);
      writeFileSync('/proc/sys/vm/nr_hugepages', '0');
    });

    test('carries what fio wrote', async (context) => {
      const given = Number(readFileSync('/proc/sys/vm/nr_hugepages', 'utf8'));
      if (given < HUGE_PAGES) context.skip(`this machine has only ${given} huge pages to give`);
      const memory = join(folder, 'clients');
      await execa('fallocate', ['-l', String(MEMORY), memory]);
      expect(existsSync(memory)).toBe(true);
      const target = targets.file(await image());
      const buffers: BufferMode[] = ['shared', 'copy'];
      await using device = await createOrSkip(context, { target, buffers });
      await using _shared = await device.share(memory);
      await fioVerify(device, [`--mem=mmaphuge:${memory}`]);
      const { zeroCopyBytes, writeBytes, errors } = device.stats().total;
      expect(errors).toBe(0);
      expect(zeroCopyBytes).toBeGreaterThan(writeBytes);
    });
  });

  test('is refused where it was not asked for, and what is no memory too', async (context) => {
    await using plain = await createOrSkip(context, { target: targets.null({ size: '1MiB' }) });
    await expect(plain.share('/dev/zero')).rejects.toMatchObject({
      code: 'ERR_UBLK_INVALID_ARGUMENT',
      hint: "create it with 'shared' among its buffers",
    });
    const options: DeviceOptions = { target: targets.null({ size: '1MiB' }), buffers: 'shared' };
    await using device = await createOrSkip(context, options);
    await expect(device.share('/etc/hostname')).rejects.toMatchObject({
      code: 'ERR_UBLK_INVALID_ARGUMENT',
    });
  });
});

withUblk('buffer modes', () => {
  afterEach(expectNoDevices);

  test('that exclude each other are refused, and both are named', async () => {
    const { createDevice } = await import('../../src/index.ts');
    const target = targets.null({ size: '1MiB' });
    await expect(createDevice({ target, buffers: ['copy', 'user-copy'] })).rejects.toThrow(
      "buffers 'copy' and buffers 'user-copy' exclude each other",
    );
    const batched: DeviceOptions = { target, buffers: 'get-data', exchange: 'batch' };
    await expect(createDevice(batched)).rejects.toThrow(
      "buffers 'get-data' and exchange 'batch' exclude each other",
    );
  });

  test.for(['auto', 'register'] as const)('%s can rotate its slots', async (buffers, context) => {
    const target = targets.file(await image());
    for (const exchange of ['per-io', 'batch'] as const) {
      const options: DeviceOptions = { target, exchange, buffers, rotateSlots: true };
      await using device = await createOrSkip(context, options);
      await fioVerify(device);
      expect(device.stats().total).toMatchObject({ errors: 0, fallbacks: 0 });
    }
  });

  test("copy's buffers take no more memory than requests have touched", async (context) => {
    const target = targets.null({ size: '64MiB' });
    await using device = await createOrSkip(context, { target, buffers: 'copy', depth: 128 });
    const before = process.memoryUsage.rss();
    await execa('fio', [
      '--name=touch',
      `--filename=${device.path}`,
      '--rw=randread',
      '--bs=4k',
      '--ioengine=libaio',
      '--iodepth=128',
      '--direct=1',
      '--number_ios=4000',
      '--size=64M',
    ]);
    expect(process.memoryUsage.rss() - before).toBeLessThan(16 * MIB);
  });
});
