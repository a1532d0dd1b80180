import { execa } from 'execa';
import { afterEach, expect, test } from 'vitest';

import {
  createDevice,
  createReactorPool,
  handler,
  targets,
  type DeviceOptions,
} from '../../src/index.ts';
import { expectNoDevices, withUblk } from './machine.ts';

const target = targets.null({ size: '64MiB' });
const HANDLER = handler({ size: '64MiB', read: ({ data }) => void data.fill(1) });
const LIMITS = { iops: 200, burst: 0 };

/** Runs so many reads of 4 KiB, 32 at a time; answers how long the reads took, in seconds. */
async function read(path: string, count: number): Promise<number> {
  const job = ['--name=read', `--filename=${path}`, '--allow_file_create=0', '--direct=1'];
  const load = ['--ioengine=libaio', '--rw=randread', '--bs=4k', '--iodepth=32'];
  const begin = performance.now();
  await execa('fio', [...job, ...load, '--norandommap', `--number_ios=${count}`]);
  return (performance.now() - begin) / 1000;
}

withUblk('a throttled device', () => {
  afterEach(expectNoDevices);

  test.each<[string, DeviceOptions]>([
    ['batch', { target, exchange: 'batch', throttle: LIMITS }],
    ['per-io', { target, exchange: 'per-io', throttle: LIMITS }],
    ['a handler', { target: HANDLER, throttle: LIMITS }],
  ])('lets no more requests through than its limit: %s', async (_how, options) => {
    await using device = await createDevice(options);
    expect(await read(device.path, 400)).toBeGreaterThan(399 / 200 - 0.01);
  });

  test('gets other limits while clients wait', async () => {
    await using device = await createDevice({ target, throttle: { iops: 1, burst: 0 } });
    const reading = read(device.path, 2000);
    while (device.stats().total.reads < 2) await new Promise((go) => setTimeout(go, 50));
    device.throttle({ write: { iops: 1 } });
    // At one request per second, the test would take longer than it may.
    await reading;
    device.throttle({ read: { bytesPerSecond: '1MiB' }, burst: 0 });
    expect(await read(device.path, 512)).toBeGreaterThan(511 / 256 - 0.01);
  });

  test('closes without waiting for its limit, and holds up no device of its pool', async () => {
    await using pool = await createReactorPool();
    await using other = await createDevice({ target, pool });
    const device = await createDevice({ target, pool, throttle: { iops: 1, burst: 0 } });
    // At one request per second, the reads would take longer than the test may.
    const reading = Promise.allSettled([read(device.path, 2000)]);
    while (device.stats().total.reads < 2) await new Promise((go) => setTimeout(go, 50));
    await read(other.path, 2000);
    const { reads } = device.stats().total;
    await device.close();
    await reading;
    expect(reads).toBeLessThan(2000);
  });
});
