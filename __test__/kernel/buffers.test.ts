import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { open, truncate } from 'node:fs/promises';
import { join } from 'node:path';

import { execa } from 'execa';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';

import { targets, type BufferMode, type Device, type DeviceOptions } from '../../src/index.ts';
import { fioVerify, MIXED, VERIFY } from './fio.ts';
import { fleet, NO_TROUBLE } from './fleet.ts';
import { folderOfTests, sparseImage, temporaryFolder } from './image.ts';
import { createOrSkip, expectNoDevices, isTestMachine, withUblk } from './machine.ts';
import { modesOf } from './modes.ts';

const MIB = 1024 * 1024;
const SIZE = 32 * MIB;
/** What fio needs for 32 requests of up to 1 MiB, and to spare. */
const MEMORY = 48 * MIB;
const HUGE_PAGES = 24;

/** What `shared` can be beside, in every exchange that allows it, with one queue and with two. */
const MODES = modesOf('auto', 'register', 'user-copy', 'get-data', 'copy').flatMap((mode) =>
  [1, 2].map((queues) => Object.assign({ queues }, mode)),
);

/** Memory of a tmpfs that fio and the server can share. */
async function memoryAt(path: string, size = MEMORY): Promise<string> {
  writeFileSync(path, '');
  await truncate(path, size);
  return path;
}

/** Fills 8 MiB of a device with a byte, out of the memory at `path`. */
async function fioFill(device: Device, byte: number, offset: number, path: string): Promise<void> {
  const what = ['--rw=write', '--bs=64k', '--size=8M', `--offset=${offset}`];
  const how = ['--ioengine=libaio', '--iodepth=32', '--direct=1', '--allow_file_create=0'];
  const bytes = [`--mem=mmapshared:${path}`, `--buffer_pattern=${byte}`];
  await execa('fio', ['--name=fill', `--filename=${device.path}`, ...what, ...how, ...bytes]);
}

withUblk('shared memory', () => {
  afterEach(expectNoDevices);

  describe('in every mode', () => {
    const folder = folderOfTests('/dev/shm');
    const devices = fleet({
      modes: MODES,
      options(mode) {
        const path = sparseImage(SIZE, folder, `${MODES.indexOf(mode)}.img`);
        return {
          target: targets.file(path),
          ...mode,
          buffers: ['shared', mode.buffers as BufferMode],
        };
      },
      async prepare(device, mode) {
        const memory = await memoryAt(join(folder, `${MODES.indexOf(mode)}.memory`), 12 * MIB);
        await device.share(memory);
        return [`--mem=mmapshared:${memory}`];
      },
      how: [...MIXED, '--bssplit=4k/50:16k/20:256k/30', ...VERIFY],
    });
    test.for(MODES)(
      'carries what fio wrote (over $buffers, $exchange, $queues queues)',
      (mode, context) => {
        const outcome = devices.of(mode, context);
        expect(outcome.trouble).toEqual(NO_TROUBLE);
        expect(outcome.device.buffers).toMatchObject({ mode: mode.buffers, shared: true });
        // What others read, udev among them, is copied.
        expect(outcome.total.zeroCopyBytes).toBeGreaterThanOrEqual(2 * 16 * MIB);
      },
    );
  });

  describe('of a tmpfs', () => {
    const memory = '/dev/shm/ublk-clients';
    beforeAll(() => memoryAt(memory));
    afterAll(() => rmSync(memory));

    test('comes and goes while clients are at work', async (context) => {
      const target = targets.file(sparseImage(SIZE));
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
      const target = targets.file(sparseImage(SIZE));
      const buffers: BufferMode[] = ['shared', 'copy'];
      await using device = await createOrSkip(context, { target, buffers });
      await using shared = await device.share(memory, { readOnly: true });
      expect(shared.index).toBe(0);
      await fioVerify(device, [`--mem=mmapshared:${memory}`]);
      const { zeroCopyBytes, writeBytes, copiedBytes, readBytes } = device.stats().total;
      expect([zeroCopyBytes, copiedBytes]).toEqual([writeBytes, readBytes]);
    });
  });

  test(
    'that the kernel registers after the time limit is taken back, and reaches no other memory',
    { timeout: 120_000 },
    async (context) => {
      const late = '/dev/shm/ublk-clients-late';
      const other = '/dev/shm/ublk-clients-other';
      onTestFinished(() => [late, other].forEach((path) => rmSync(path, { force: true })));
      await Promise.all([memoryAt(late), memoryAt(other)]);
      const image = sparseImage(SIZE);
      const options: DeviceOptions = {
        target: targets.delay(targets.file(image), { readUs: 12_000_000 }),
        buffers: ['shared', 'copy'],
        partScan: false,
        timeoutMs: 4000,
      };
      await using device = await createOrSkip(context, options);
      await using client = await open(device.path, 'r');
      const read = client.read(Buffer.alloc(4096), 0, 4096, 0);
      await expect
        .poll(() => readFileSync(`/sys/block/ublkb${device.id}/inflight`, 'utf8').trim())
        .toMatch(/^[1-9]/);
      await expect(device.share(late)).rejects.toMatchObject({ code: 'ERR_UBLK_TIMEOUT' });
      await expect(device.share(other)).rejects.toMatchObject({ code: 'ERR_UBLK_BUSY' });
      await read;
      await expect
        .poll(() => device.share(other).catch((error: unknown) => error), { timeout: 20_000 })
        .toHaveProperty('index');
      await fioFill(device, 0xaa, 0, late);
      const { zeroCopyBytes: before } = device.stats().total;
      await fioFill(device, 0xbb, 8 * MIB, other);
      const { zeroCopyBytes, errors } = device.stats().total;
      expect([before, zeroCopyBytes, errors]).toEqual([0, 8 * MIB, 0]);
      const written = readFileSync(image);
      expect(written.subarray(0, 8 * MIB).equals(Buffer.alloc(8 * MIB, 0xaa))).toBe(true);
      expect(written.subarray(8 * MIB, 16 * MIB).equals(Buffer.alloc(8 * MIB, 0xbb))).toBe(true);
    },
  );

  test('is no FIFO, which nobody waits for', async (context) => {
    const fifo = join(temporaryFolder(), 'fifo');
    await execa('mkfifo', [fifo]);
    const target = targets.null({ size: MIB });
    await using device = await createOrSkip(context, { target, buffers: ['shared', 'copy'] });
    for (const readOnly of [true, false]) {
      await expect(device.share(fifo, { readOnly })).rejects.toMatchObject({
        code: 'ERR_UBLK_INVALID_ARGUMENT',
      });
    }
  });

  test('that is cut while a read is under way fails the read, and kills nobody', async (context) => {
    const memory = '/dev/shm/ublk-clients-cut';
    onTestFinished(() => rmSync(memory, { force: true }));
    await memoryAt(memory, 8 * MIB);
    const image = sparseImage(SIZE);
    const options: DeviceOptions = {
      target: targets.delay(targets.file(image), { readUs: 3_000_000 }),
      buffers: ['shared', 'copy'],
      partScan: false,
    };
    await using device = await createOrSkip(context, options);
    await device.share(memory);
    // What is read beyond the end of its file is filled with zeros.
    await truncate(image, MIB);
    const what = ['--rw=read', '--bs=64k', '--size=64k', '--offset=8M', '--allow_file_create=0'];
    const how = ['--ioengine=libaio', '--direct=1', `--mem=mmapshared:${memory}`];
    const read = execa('fio', ['--name=cut', `--filename=${device.path}`, ...what, ...how], {
      reject: false,
    });
    await expect
      .poll(() => readFileSync(`/sys/block/ublkb${device.id}/inflight`, 'utf8').trim(), {
        timeout: 30_000,
      })
      .toMatch(/^[1-9]/);
    await truncate(memory, 0);
    expect((await read).exitCode).not.toBe(0);
    expect(device.stats().total.errors).toBe(1);
    // Others are served on.
    await execa('dd', [`if=${device.path}`, 'of=/dev/null', 'bs=4k', 'count=1', 'iflag=direct']);
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
      const target = targets.file(sparseImage(SIZE));
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
    const target = targets.file(sparseImage(SIZE));
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
