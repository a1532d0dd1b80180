import { readdirSync, readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';

import { afterEach, expect, test, vi } from 'vitest';

import { createDevice, createReactorPool, features, targets } from '../../src/index.ts';
import { randomImage } from './image.ts';
import { expectNoDevices, withUblk } from './machine.ts';

const DEVICES = 12;

async function hasBatches(): Promise<boolean> {
  return (await features()).some(({ name, supported }) => name === 'BATCH_IO' && supported);
}

function reactorThreads(): string[] {
  const nameOf = (task: string): string => {
    try {
      return readFileSync(`/proc/self/task/${task}/comm`, 'utf8').trim();
    } catch {
      return ''; // It has just ended.
    }
  };
  const names = readdirSync('/proc/self/task').map(nameOf);
  return names.filter((name) => /^ublk(-pool\d+|\d+q\d+)$/.test(name)).sort();
}

withUblk('a pool of reactors', () => {
  afterEach(expectNoDevices);

  test('serves many devices, whatever their exchange', async () => {
    const pool = await createReactorPool({ reactors: 2 });
    const image = randomImage(1 << 20);
    const target = targets.file(image.path, { readOnly: true });
    const exchanges = (await hasBatches()) ? (['per-io', 'batch'] as const) : (['per-io'] as const);
    const devices = [];
    for (let count = 0; count < DEVICES; count++) {
      const exchange = exchanges[count % exchanges.length]!;
      devices.push(await createDevice({ target, pool, exchange, depth: 64 }));
    }
    expect(reactorThreads()).toEqual(['ublk-pool0', 'ublk-pool1']);
    for (const { path } of devices) {
      await using disk = await open(path);
      expect((await disk.readFile()).equals(image.bytes)).toBe(true);
    }
    await Promise.all(devices.map((device) => device.close()));
    await pool.close();
    await vi.waitFor(() => expect(reactorThreads()).toEqual([]), 30_000);
  });

  test('is closed after its devices, and takes no others then', async () => {
    const target = targets.null({ size: '1GiB' });
    const pool = await createReactorPool();
    const device = await createDevice({ target, pool });
    await expect(pool.close()).rejects.toMatchObject({
      code: 'ERR_UBLK_BUSY',
      message: `the pool serves ${device.path}`,
    });
    await device.close();
    await pool.close();
    await vi.waitFor(() => expect(reactorThreads()).toEqual([]), 30_000);
    await expect(createDevice({ target, pool })).rejects.toMatchObject({ code: 'ERR_UBLK_CLOSED' });
  });
});
