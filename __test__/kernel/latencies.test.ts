import { afterEach, expect, test } from 'vitest';

import { createDevice, latencyPercentile, targets } from '../../src/index.ts';
import { execa } from 'execa';
import { sparseImage } from './image.ts';
import { expectNoDevices, withUblk } from './machine.ts';
import { startServer, ublk } from './server.ts';

const MIB = 1 << 20;

/** Reads and writes past the page cache, one request of 4 KiB after another. */
async function use(path: string, reads: number, writes: number): Promise<void> {
  const dd = (...args: string[]) => execa('dd', ['bs=4k', 'status=none', ...args]);
  await dd(`if=${path}`, 'of=/dev/null', `count=${reads}`, 'iflag=direct');
  await dd('if=/dev/zero', `of=${path}`, `count=${writes}`, 'oflag=direct', 'conv=fsync');
}

withUblk('a device that measures latencies', () => {
  afterEach(expectNoDevices);

  test.each(['per-io', 'batch'] as const)('counts each request once (%s)', async (exchange) => {
    const below = targets.file(sparseImage(8 * MIB));
    const target = targets.delay(below, { readUs: 20_000 });
    await using device = await createDevice({ target, exchange, latencies: true, partScan: false });
    const before = device.stats().latencies!.read.count;
    await use(device.path, 20, 30);
    const { total, latencies } = device.stats();
    expect(latencies?.read.count).toBe(total.reads);
    expect(latencies!.read.count - before).toBeGreaterThanOrEqual(20);
    expect(latencies?.write.count).toBe(total.writes);
    expect(total.writes).toBeGreaterThanOrEqual(30);
    expect(latencies?.flush.count).toBe(total.flushes);
    // The server has had each read for as long as the target delays it.
    const { count, sum } = latencies!.read;
    expect(sum / count).toBeGreaterThanOrEqual(20e6);
    expect(latencyPercentile(latencies!.read, 1)).toBeGreaterThan(20e6);
  });

  test('has no histograms unless asked', async () => {
    await using device = await createDevice({ target: targets.null({ size: MIB }) });
    expect(device.stats().latencies).toBeUndefined();
  });

  test('tells them at the end of ublk add', async () => {
    const { server, path } = await startServer('add', 'file', sparseImage(8 * MIB), '--latencies');
    await use(path, 10, 10);
    expect((await ublk('stop', '0')).exitCode).toBe(0);
    expect((await server).stderr).toMatch(/write p50 \d+ µs, p99 \d+ µs/);
  });
});
