import { open, readFile } from 'node:fs/promises';
import { readdirSync, readFileSync } from 'node:fs';

import { afterEach, expect, test } from 'vitest';

import { createDevice, createReactorPool, targets } from '../../src/index.ts';
import { randomImage } from './image.ts';
import { expectNoDevices, withUblk } from './machine.ts';

const DEVICES = 40;

function reactorThreads(): string[] {
  const names = readdirSync('/proc/self/task').map((task) =>
    readFileSync(`/proc/self/task/${task}/comm`, 'utf8').trim(),
  );
  return names.filter((name) => /^ublk(-pool\d+|\d+q\d+)$/.test(name)).sort();
}

withUblk('a pool of reactors', () => {
  afterEach(expectNoDevices);

  test.each(['per-io', 'batch'] as const)('serves many devices (%s)', async (exchange) => {
    const pool = await createReactorPool({ reactors: 2 });
    const image = await randomImage(1 << 20);
    const target = targets.file(image, { readOnly: true });
    const options = { target, pool, exchange, depth: 64 };
    const devices = [];
    for (let count = 0; count < DEVICES; count++) devices.push(await createDevice(options));
    expect(reactorThreads()).toEqual(['ublk-pool0', 'ublk-pool1']);
    const content = await readFile(image);
    for (const { path } of devices.slice(-5)) {
      await using disk = await open(path);
      expect((await disk.readFile()).equals(content)).toBe(true);
    }
    await Promise.all(devices.map((device) => device.close()));
  });

  test('that is full refuses the next device and serves the others on', async () => {
    const pool = await createReactorPool();
    const target = targets.null({ size: '1MiB' });
    const create = () => createDevice({ target, pool, buffers: 'auto', depth: 4096 });
    const devices = [await create(), await create(), await create(), await create()];
    await expect(create()).rejects.toThrow('buffer table is full');
    await using disk = await open(devices[3]!.path);
    expect((await disk.read(Buffer.alloc(4096), 0, 4096, 0)).bytesRead).toBe(4096);
    await disk.close();
    await Promise.all(devices.map((device) => device.close()));
  });
});
