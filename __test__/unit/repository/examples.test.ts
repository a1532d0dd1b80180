// The disks of the examples, on the simulated driver; __test__/kernel runs the programs.

import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { EncryptedDisk } from '../../../examples/encrypted-disk.ts';
import { FaultyDisk } from '../../../examples/faulty-disk.ts';
import { heatMap } from '../../../examples/heat-map.ts';
import { MemoryDisk } from '../../../examples/memory-disk.ts';
import { type Completion, targets } from '../../../src/index.ts';
import { simulate } from '../../../src/testing/index.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ublk-examples-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

test('a memory disk of a terabyte takes the space of what is written', async () => {
  const memory = new MemoryDisk('1TiB');
  await using disk = await simulate(memory);
  const data = randomBytes(200 * 1024);
  const place = 2 ** 39 + 1024;
  await disk.write(place, data);
  expect((await disk.read(place, data.length)).equals(data)).toBe(true);
  expect((await disk.read(place - 1024, 1024)).equals(Buffer.alloc(1024))).toBe(true);
  expect(memory.used).toBe(4 * 64 * 1024);
  await disk.writeZeroes(place + 512, 100 * 1024);
  data.fill(0, 512, 512 + 100 * 1024);
  expect((await disk.read(place, data.length)).equals(data)).toBe(true);
  await disk.discard(2 ** 39, 2 ** 20);
  expect(memory.used).toBe(0);
});

test('an encrypted disk keeps nothing readable in its file, across a power cut', async () => {
  const path = join(folder, 'secret.img');
  const size = 1 << 20;
  writeFileSync(path, Buffer.alloc(size));
  const key = randomBytes(64);
  const secret = Buffer.from('the same secret in each sector. '.repeat(1024));
  {
    await using disk = await simulate(new EncryptedDisk(path, size, key), { seed: 4 });
    await disk.write(8192, secret);
    await disk.flush();
    await disk.powerCut();
    expect((await disk.read(8192, secret.length)).equals(secret)).toBe(true);
  }
  const file = readFileSync(path);
  expect(file.includes('secret')).toBe(false);
  expect(file.subarray(8192, 12288).equals(file.subarray(12288, 16384))).toBe(false);
  expect(() => new EncryptedDisk(path, size, Buffer.alloc(63))).toThrow('Invalid key length');
  await using other = await simulate(new EncryptedDisk(path, size, randomBytes(64)));
  expect((await other.read(8192, secret.length)).includes('secret')).toBe(false);
});

test('a faulty disk keeps flushed and FUA writes; others it keeps, loses or tears', async () => {
  const faulty = new FaultyDisk('1MiB', 3);
  await using disk = await simulate(faulty);
  await disk.write(0, Buffer.alloc(4096, 1));
  await disk.flush();
  await disk.write(4096, Buffer.alloc(4096, 2), { fua: true });
  for (let at = 8192; at < 1 << 20; at += 4096) await disk.write(at, Buffer.alloc(4096, 3));
  faulty.cutPower();
  await expect(disk.read(0, 4096)).rejects.toThrow('EIO');
  faulty.restorePower();
  const left = await disk.read(0, 1 << 20);
  expect(left.subarray(0, 8192)).toEqual(
    Buffer.concat([Buffer.alloc(4096, 1), Buffer.alloc(4096, 2)]),
  );
  const fates = { kept: 0, lost: 0, torn: 0 };
  for (let at = 8192; at < left.length; at += 4096) {
    const bytes = new Set(left.subarray(at, at + 4096));
    fates[bytes.size === 2 ? 'torn' : bytes.has(3) ? 'kept' : 'lost'] += 1;
  }
  expect(Math.min(fates.kept, fates.lost, fates.torn)).toBeGreaterThan(20);
});

test('a heat map shows where a disk is read and written', async () => {
  await using disk = await simulate(targets.null({ size: '128MiB' }));
  const batches = disk.device.completions();
  await disk.write(0, Buffer.alloc(1 << 20));
  await disk.read(127 << 20, 4096);
  await disk.flush();
  const trace: readonly Completion[] = (await batches.next()).value!.completions;
  const cells = [...heatMap(trace, disk.size).matchAll(/<rect x="(\d+)" y="(\d+)".*fill="(\w+)"/g)];
  // 128 columns of 8, 64 rows of 8: the first cell's right half, the last one's left half.
  expect(cells.map(([, x, y, color]) => [x, y, color])).toEqual([
    ['4', '0', 'crimson'],
    ['1016', '504', 'royalblue'],
  ]);
});
