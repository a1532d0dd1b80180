import { randomBytes } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';

import { afterEach, describe, expect, test } from 'vitest';

import { createDevice, features, targets, type BufferMode } from '../../src/index.ts';
import type { DeviceOptions } from '../../src/index.ts';
import { randomImage } from './image.ts';
import { createOrSkip, expectNoDevices, withUblk } from './machine.ts';

const MODES: BufferMode[] = ['auto', 'register', 'user-copy', 'get-data', 'copy'];
const ZERO_COPY: BufferMode[] = ['auto', 'register'];
const KIB = 1024;
const MIB = 1024 * KIB;

/** All of a block device, past what the page cache has of it. */
async function contents(path: string): Promise<Buffer> {
  await using file = await open(path, 'r');
  return await file.readFile();
}

async function overwrite(path: string, bytes: Uint8Array, position: number): Promise<void> {
  await using file = await open(path, 'r+');
  await file.write(bytes, 0, bytes.length, position);
  await file.sync();
}

withUblk('a served device', () => {
  afterEach(expectNoDevices);

  describe.each(MODES)('with buffers: %s', (buffers) => {
    test('of nothing reads and writes', async (context) => {
      const target = targets.null({ size: '64MiB' });
      await using device = await createOrSkip(context, { target, buffers, queues: 2, depth: 32 });
      expect(device.buffers.mode).toBe(buffers);
      expect(device.size).toBe(64 * MIB);
      await overwrite(device.path, Buffer.alloc(MIB), 4 * KIB);
      expect(device.stats().total).toMatchObject({ writeBytes: MIB, errors: 0 });
    });

    test('of an image reads what it holds and writes what it is given', async (context) => {
      const { path, bytes } = randomImage(8 * MIB);
      await using device = await createOrSkip(context, {
        target: targets.file(path),
        buffers,
        queues: 2,
      });
      expect((await contents(device.path)).equals(bytes)).toBe(true);
      const change = randomBytes(3 * MIB + 512);
      await overwrite(device.path, change, MIB + 1536);
      change.copy(bytes, MIB + 1536);
      expect((await contents(device.path)).equals(bytes)).toBe(true);
      await device.close();
      expect(readFileSync(path).equals(bytes)).toBe(true);
    });

    test('counts the bytes that were copied, and those that were not', async (context) => {
      const { path } = randomImage(MIB);
      await using device = await createOrSkip(context, { target: targets.file(path), buffers });
      await contents(device.path);
      const { readBytes, zeroCopyBytes, copiedBytes, flushes, errors } = device.stats().total;
      expect(readBytes).toBeGreaterThanOrEqual(MIB);
      const zeroCopy = ZERO_COPY.includes(buffers);
      expect(zeroCopyBytes).toBe(zeroCopy ? readBytes : 0);
      expect(copiedBytes).toBe(zeroCopy ? 0 : readBytes);
      expect({ flushes, errors }).toEqual({ flushes: 0, errors: 0 });
    });

    test('of one block of 4 KiB works like any other', async (context) => {
      const { path, bytes } = randomImage(4 * KIB);
      const target = targets.file(path, { logicalBlockSize: 4 * KIB });
      await using device = await createOrSkip(context, { target, buffers, depth: 1 });
      expect((await contents(device.path)).equals(bytes)).toBe(true);
      const change = randomBytes(4 * KIB);
      await overwrite(device.path, change, 0);
      await device.close();
      expect(readFileSync(path).equals(change)).toBe(true);
    });
  });

  test('registers in system calls of their own when told to', async (context) => {
    const { path, bytes } = randomImage(MIB);
    const options: DeviceOptions = { target: targets.file(path), buffers: 'register' };
    await using device = await createOrSkip(context, { ...options, splitRegister: true });
    expect((await contents(device.path)).equals(bytes)).toBe(true);
    expect(device.stats().total.registrations).toBeGreaterThan(0);
  });

  test('commits many requests with one command when told to', async (context) => {
    const { path, bytes } = randomImage(4 * MIB);
    const options: DeviceOptions = { target: targets.file(path), exchange: 'batch' };
    await using device = await createOrSkip(context, options);
    expect(device.buffers.exchange).toBe('batch');
    expect(device.features).toContain('BATCH_IO');
    expect((await contents(device.path)).equals(bytes)).toBe(true);
  });

  test('has the best buffer mode that the kernel offers, if none is asked for', async () => {
    const offered = (await features()).filter((one) => one.supported).map((one) => one.name);
    await using device = await createDevice({ target: targets.null({ size: '1MiB' }) });
    const zeroCopy = device.features.includes('SUPPORT_ZERO_COPY');
    const best = zeroCopy ? (offered.includes('AUTO_BUF_REG') ? 'auto' : 'register') : 'copy';
    expect(device.buffers.mode).toBe(best);
  });

  test('is a block device with the id, shape and size that were asked for', async () => {
    const { path } = randomImage(MIB);
    const target = targets.file(path, { size: '512KiB', logicalBlockSize: 4 * KIB });
    const shape = { id: 5, depth: 16, maxIoBytes: '256KiB' };
    await using device = await createDevice({ target, ...shape });
    expect(statSync(device.path).isBlockDevice()).toBe(true);
    expect(device).toMatchObject({ id: 5, path: '/dev/ublkb5', depth: 16, size: 512 * KIB });
    expect(device).toMatchObject({ maxIoBytes: 256 * KIB, logicalBlockSize: 4 * KIB, queues: 1 });
    expect((await contents(device.path)).length).toBe(512 * KIB);
  });

  test('that is read-only refuses to be written, and its image stays as it was', async () => {
    const { path, bytes } = randomImage(MIB);
    await using device = await createDevice({ target: targets.file(path, { readOnly: true }) });
    expect(device.readOnly).toBe(true);
    const written = overwrite(device.path, Buffer.alloc(4 * KIB), 0);
    await expect(written).rejects.toMatchObject({ code: 'EPERM' });
    expect((await contents(device.path)).equals(bytes)).toBe(true);
    await device.close();
    expect(readFileSync(path).equals(bytes)).toBe(true);
  });

  test('through the page cache serves the same bytes', async () => {
    const { path, bytes } = randomImage(MIB);
    await using device = await createDevice({ target: targets.file(path, { direct: false }) });
    expect((await contents(device.path)).equals(bytes)).toBe(true);
  });
});
