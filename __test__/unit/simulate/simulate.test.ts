import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { type Device, IoError, targets } from '../../../src/index.ts';
import { simulate, type SimulateOptions } from '../../../src/testing/index.ts';

const SIZE = 1 << 20;
let folder = '';
let image = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ublk-simulate-'));
  image = join(folder, 'disk.img');
  writeFileSync(image, '');
  truncateSync(image, SIZE);
});
afterEach(() => {
  vi.useRealTimers();
  rmSync(folder, { recursive: true });
});

const disk = (options?: SimulateOptions) =>
  simulate(targets.file(image, { logicalBlockSize: 4096 }), options);
const block = (byte: number, blocks = 1) => Buffer.alloc(blocks * 4096, byte);

/** Said of each block's first byte, since comparing large buffers byte by byte takes seconds. */
function blocks(bytes: Buffer): number[] {
  const firsts = [];
  for (let at = 0; at < bytes.length; at += 4096) {
    const one = bytes.subarray(at, at + 4096);
    firsts.push(one.equals(block(one[0]!)) ? one[0]! : -1);
  }
  return firsts;
}

test('a simulated disk holds what is written to it, and so does its file in the end', async () => {
  const simulated = await disk();
  expect(simulated).toMatchObject({ size: SIZE, logicalBlockSize: 4096 });
  await simulated.write(8192, block(7, 3));
  await simulated.writeZeroes(12288, 4096);
  expect(blocks(await simulated.read(4096, 5 * 4096))).toEqual([0, 7, 0, 7, 0]);
  await simulated.discard(0, SIZE);
  await simulated.write(0, new Uint8Array(4096).fill(9), { fua: true });
  expect(blocks(readFileSync(image)).slice(0, 2)).toEqual([9, 0]);
  expect(simulated.device.stats().total).toMatchObject({ writes: 2, discards: 1, errors: 0 });
  await simulated.write(4096, block(5));
  await simulated.close();
  expect(blocks(readFileSync(image))).toEqual([9, 5, ...Array<number>(254).fill(0)]);
});

test('a flush outlives a power cut; what was not flushed may be torn', async () => {
  await using simulated = await disk({ seed: 7 });
  await simulated.write(0, block(1, 16));
  await simulated.flush();
  await simulated.write(8 * 4096, block(2, 16));
  const before = simulated.device;
  await simulated.powerCut();
  expect(simulated.device).not.toBe(before);
  expect(await before.closed).toBe('closed');
  expect(blocks(await simulated.read(0, 8 * 4096))).toEqual(Array(8).fill(1));
  const rest = await simulated.read(8 * 4096, 16 * 4096);
  expect(new Set(rest)).toEqual(new Set([0, 1, 2]));
  expect(rest.equals(readFileSync(image).subarray(8 * 4096, 24 * 4096))).toBe(true);
});

test('a power cut catches what is under way', async () => {
  await using simulated = await disk({ seed: 3 });
  const writes = Array.from({ length: 32 }, (_, index) => simulated.write(index * 4096, block(1)));
  const [settled] = await Promise.all([Promise.allSettled(writes), simulated.powerCut()]);
  const fates = new Set(settled.map(({ status }) => status));
  expect(fates).toEqual(new Set(['fulfilled', 'rejected']));
  const lost = settled.find((one) => one.status === 'rejected')!;
  expect(lost.reason).toMatchObject({ code: 'ERR_UBLK_IO', errno: 5, syscall: 'write' });
  await simulated.write(0, block(2));
  expect(await simulated.read(0, 4096)).toEqual(block(2));
});

test('a seed decides everything', async () => {
  const faults = { short: 0.2, error: 0.1, interrupted: 0.2, command: 0.1 };
  const history = async (seed: number) => {
    writeFileSync(image, Buffer.alloc(SIZE));
    await using simulated = await disk({ seed, faults });
    const fates = [];
    const worker = async (first: number) => {
      for (let index = first; index < 64; index += 4) {
        await simulated.write(index * 8192, block(index, 2)).then(
          () => fates.push(index),
          (error: Error) => fates.push(error.message),
        );
      }
    };
    await Promise.all([worker(0), worker(1), worker(2), worker(3)]);
    await simulated.powerCut();
    fates.push(simulated.injected);
    await simulated.close();
    const left = createHash('sha256').update(readFileSync(image)).digest('hex');
    return { fates, left };
  };
  const first = await history(5);
  expect(first.fates.at(-1)).toMatchObject({ error: expect.any(Number) });
  expect(await history(5)).toEqual(first);
  expect(await history(5)).toEqual(first);
  expect(await history(6)).not.toEqual(first);
});

test('faults come and go', async () => {
  await using simulated = await disk({ faults: { error: 1 } });
  await expect(simulated.read(4096, 8192)).rejects.toMatchObject({
    message: 'the disk failed a read of 8192 bytes at 4096: EIO',
    code: 'ERR_UBLK_IO',
    errno: 5,
  });
  await expect(simulated.flush()).rejects.toThrow('the disk failed a flush: EIO');
  expect(simulated.injected.error).toBe(2);
  simulated.setFaults({});
  await simulated.read(4096, 8192);
  simulated.setFaults({ short: 0.5 });
  for (let index = 0; index < 8; index++) await simulated.write(0, block(index, 32));
  expect(await simulated.read(0, 4096)).toEqual(block(7));
  expect(simulated.injected.short).toBeGreaterThan(0);
});

test.each<[SimulateOptions, Device['buffers']]>([
  [{}, { mode: 'auto', exchange: 'per-io' }],
  [{ buffers: 'register' }, { mode: 'register', exchange: 'per-io' }],
  [
    { buffers: 'register', splitRegister: true },
    { mode: 'register', exchange: 'per-io' },
  ],
  [{ buffers: 'user-copy' }, { mode: 'user-copy', exchange: 'per-io' }],
  [{ buffers: 'get-data' }, { mode: 'get-data', exchange: 'per-io' }],
  [
    { buffers: 'copy', exchange: 'batch' },
    { mode: 'copy', exchange: 'batch' },
  ],
  [
    { exchange: 'batch', queues: 2, depth: 4 },
    { mode: 'auto', exchange: 'batch' },
  ],
  [{ kernel: '6.12' }, { mode: 'copy', exchange: 'per-io' }],
])('every way to serve works: %j', async (options, buffers) => {
  await using simulated = await disk({ ...options, maxIoBytes: '64k' });
  expect(simulated.device.buffers).toEqual(buffers);
  const data = Buffer.from(Array.from({ length: 300 << 10 }, (_, index) => index % 251));
  await simulated.write(4096, data);
  expect(data.equals(await simulated.read(4096, data.length))).toBe(true);
});

test('a null target needs no file', async () => {
  await using simulated = await simulate(targets.null({ size: '1TiB' }));
  await simulated.write(2 ** 40 - 4096, block(1));
  await simulated.writeZeroes(0, 2 ** 40);
  expect(await simulated.read(0, 0)).toEqual(Buffer.alloc(0));
});

test('a handler is served as a target is, before and after a power cut', async () => {
  const bytes = Buffer.alloc(SIZE);
  await using simulated = await simulate({
    size: SIZE,
    read: ({ offset, data }) => void bytes.copy(data, 0, offset),
    async write({ offset, data }) {
      await setTimeout(1);
      if (offset === 0) throw new IoError('ENOSPC');
      data.copy(bytes, offset);
    },
    flush() {},
  });
  await simulated.write(4096, block(1, 2));
  await expect(simulated.write(0, block(9))).rejects.toThrow('ENOSPC');
  await simulated.flush();
  await simulated.powerCut();
  await simulated.write(8192, block(2));
  expect(blocks(await simulated.read(0, 16384))).toEqual([0, 1, 2, 0]);
});

test('a step that fails rejects with its errno, and its request goes on', async () => {
  writeFileSync(image, block(3, 256));
  const failures: unknown[] = [];
  const file = targets.file(image, { logicalBlockSize: 4096 });
  await using simulated = await simulate(
    {
      size: SIZE,
      backends: { file },
      async read(request) {
        await request.read('file', 0).catch((error: unknown) => failures.push(error));
        simulated.setFaults({});
        await request.read('file', request.offset);
      },
    },
    { faults: { error: 1 } },
  );
  expect(await simulated.read(8192, 4096)).toEqual(block(3));
  expect(failures).toMatchObject([{ code: 'EIO', errno: 5 }]);
  expect(IoError.is(failures[0])).toBe(true);
});

test('steps that run together settle each with its own result', async () => {
  writeFileSync(image, block(3, 256));
  const file = targets.file(image, { logicalBlockSize: 4096, readOnly: true });
  const broken = targets.error({ size: SIZE });
  const results: string[] = [];
  await using simulated = await simulate({
    size: SIZE,
    backends: { file, broken, late: targets.delay(file, { readUs: 100 }) },
    async read(request) {
      const settled = await Promise.allSettled([
        request.read('broken', 0, 4096),
        request.read('file', 4096, 4096),
        request.read('late', 8192, 4096, 4096),
        request.read('file', SIZE, 4096),
      ]);
      results.push(...settled.map((one) => ('reason' in one ? String(one.reason) : one.status)));
    },
  });
  expect(await simulated.read(0, 8192)).toEqual(block(3, 2));
  expect(results).toEqual([
    "IoError: backend 'broken' failed to read with EIO",
    'fulfilled',
    'fulfilled',
    "IoError: backend 'file' failed to read with EINVAL",
  ]);
});

test('what a handler puts on its backends has power to lose', async () => {
  const file = targets.file(image, { logicalBlockSize: 4096 });
  const map = ({ offset }: { offset: number }) => ({ backend: 'file' as const, offset });
  await using simulated = await simulate({ size: SIZE, backends: { file }, map });
  expect(simulated.device.buffers.mode).toBe('auto');
  await simulated.write(0, block(1, 32));
  await simulated.flush();
  await simulated.write(0, block(2, 32));
  await simulated.powerCut();
  expect(new Set(await simulated.read(0, 32 * 4096))).toEqual(new Set([1, 2]));
});

test('fake timers do not stop it', async () => {
  vi.useFakeTimers();
  await using simulated = await disk();
  expect(await simulated.read(0, 4096)).toEqual(block(0));
});

test('bad operations are refused, with what would be good', async () => {
  await using simulated = await disk();
  await expect(simulated.read(1, 4096)).rejects.toThrow(
    "the offset of a read is 1; it must be a multiple of the disk's logicalBlockSize, 4096",
  );
  await expect(simulated.write(0, Buffer.alloc(3))).rejects.toThrow('the length of a write is 3');
  await expect(simulated.read(0, -4096)).rejects.toThrow('the length of a read is -4096');
  await expect(simulated.discard(SIZE, 4096)).rejects.toThrow(
    'a discard of 4096 bytes at 1048576 is beyond the end of the disk, which has 1048576',
  );
  await expect(simulated.write(0, 'x' as never)).rejects.toThrow('data is no Buffer');
  await expect(simulated.write(0, block(1), { fsync: true } as never)).rejects.toThrow("'fsync'");
});

test('bad options are refused, and name what is wrong', async () => {
  await expect(disk({ seed: -1 })).rejects.toThrow('seed is -1');
  await expect(disk({ faults: { short: 2 } })).rejects.toThrow('faults.short is 2');
  await expect(disk({ kernel: '5.4' as never })).rejects.toThrow('kernel is "5.4"');
  await expect(disk({ id: 3 } as never)).rejects.toThrow("simulate() has no 'id'");
  await expect(simulate({} as never)).rejects.toThrow('target is no target');
  await expect(simulate(targets.file(join(folder, 'missing')))).rejects.toMatchObject({
    code: 'ERR_UBLK_NO_BACKEND',
  });
  await expect(disk({ kernel: '6.12', buffers: 'auto' })).rejects.toMatchObject({
    code: 'ERR_UBLK_UNSUPPORTED',
  });
});

test('a disk that is closed says so, and its file is free', async () => {
  const simulated = await disk();
  const last = simulated.write(0, block(4));
  await simulated.close();
  await last;
  await simulated.close();
  await expect(simulated.read(0, 4096)).rejects.toMatchObject({ code: 'ERR_UBLK_CLOSED' });
  await expect(simulated.powerCut()).rejects.toMatchObject({ code: 'ERR_UBLK_CLOSED' });
  await using again = await disk();
  expect(await again.read(0, 4096)).toEqual(block(4));
});
