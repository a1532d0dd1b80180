import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';

import { afterEach, expect, test, vi } from 'vitest';

import { connectService, createDevice, metrics, targets } from '../../src/index.ts';
import { Registry } from '../prom-client.ts';
import { sparseImage, temporaryFolder } from './image.ts';
import { endLoad, startLoad } from './load.ts';
import { expectNoDevices, withUblk } from './machine.ts';
import { startServer, ublk } from './server.ts';

/** Several processes start, one after another. */
const slow = { timeout: 900_000 };
const soon = { timeout: 60_000, interval: 200 };

/** A port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function scrape(url: string): Promise<string> {
  const answer = await fetch(url);
  expect(answer.status).toBe(200);
  return await answer.text();
}

/** The value of a metric of the device with a name; NaN, where the text has none. */
function valueOf(text: string, metric: string, name: string): number {
  const line = new RegExp(`^ublk_${metric}\\{device="ublkb\\d+",name="${name}"\\} (\\S+)$`, 'm');
  return Number(line.exec(text)?.[1] ?? Number.NaN);
}

withUblk('the metrics of devices', () => {
  afterEach(expectNoDevices);

  test('are scraped beside a load, of a service and of all devices', slow, async () => {
    const image = sparseImage(64 << 20);
    const port = await freePort();
    const path = join(temporaryFolder(), 'ublk.toml');
    const devices = `[devices.data]\ntarget = { kind = "file", path = "${image}" }\n`;
    writeFileSync(path, `metrics = "127.0.0.1:${port}"\n${devices}`);
    const { server } = await startServer('serve', path);
    const client = await connectService();
    const { id } = await client.device('data');
    const url = `http://127.0.0.1:${port}/metrics`;

    const load = startLoad(`/dev/ublkb${id}`);
    let first = '';
    await vi.waitFor(async () => {
      first = await scrape(url);
      expect(valueOf(first, 'writes_completed_total', 'data')).toBeGreaterThan(100);
    }, soon);
    expect(valueOf(first, 'size_bytes', 'data')).toBe(64 << 20);
    expect(valueOf(first, 'disk_write_time_seconds_total', 'data')).toBeGreaterThan(0);
    const most = valueOf(first, 'queues', 'data') * valueOf(first, 'queue_depth', 'data');
    expect(valueOf(first, 'disk_io_now', 'data')).toBeLessThanOrEqual(most);

    // A device of a program without a control socket: the kernel alone tells of the device.
    const target = targets.null({ size: '1MiB' });
    await using mine = await createDevice({ target, name: 'mine' });
    const registry = new Registry();
    metrics(registry);
    expect(valueOf(await registry.metrics(), 'enters_total', 'mine')).toBeNaN();
    expect(valueOf(await registry.metrics(), 'io_uring_enters_total', 'mine')).toBeGreaterThan(0);
    const listening = await startServer('metrics', '--listen', '0');
    for (const text of [(await ublk('metrics')).stdout, await scrape(listening.path)]) {
      expect(valueOf(text, 'writes_completed_total', 'data')).toBeGreaterThan(100);
      expect(valueOf(text, 'size_bytes', 'mine')).toBe(mine.size);
      expect(valueOf(text, 'disk_writes_completed_total', 'mine')).toBe(0);
      expect(valueOf(text, 'writes_completed_total', 'mine')).toBeNaN();
    }
    listening.server.kill('SIGTERM');
    expect((await listening.server).exitCode).toBe(0);

    await endLoad(load);
    const last = await scrape(url);
    const written = valueOf(last, 'written_bytes_total', 'data');
    expect(written).toBeGreaterThan(valueOf(first, 'written_bytes_total', 'data'));
    expect(written).toBe((await client.device('data')).total.writeBytes);
    // The kernel has counted the same bytes as the server.
    expect(valueOf(last, 'disk_written_bytes_total', 'data')).toBe(written);
    expect(valueOf(last, 'disk_io_now', 'data')).toBe(0);

    writeFileSync(path, devices);
    await client.reload();
    await expect(fetch(url)).rejects.toThrow('fetch failed');
    await client.stop('data');
    const { exitCode, stderr } = await server;
    expect(exitCode).toBe(0);
    expect(stderr).toContain(`metrics at ${url}\n`);
  });
});
