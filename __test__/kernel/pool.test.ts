import { readdirSync, readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';

import { execa } from 'execa';
import { afterEach, expect, test, vi } from 'vitest';

import {
  createDevice,
  createReactorPool,
  features,
  recoverDevice,
  targets,
} from '../../src/index.ts';
import { randomImage } from './image.ts';
import { expectNoDevices, need, withUblk } from './machine.ts';

const DEVICES = 12;

async function hasBatches(): Promise<boolean> {
  return (await features()).some(({ name, supported }) => name === 'BATCH_IO' && supported);
}

/** The names of this package's threads, sorted. */
function threads(): string[] {
  const nameOf = (task: string): string => {
    try {
      return readFileSync(`/proc/self/task/${task}/comm`, 'utf8').trim();
    } catch {
      return ''; // It has just ended.
    }
  };
  const names = readdirSync('/proc/self/task').map(nameOf);
  return names.filter((name) => name.startsWith('ublk')).sort();
}

function reactorThreads(): string[] {
  return threads().filter((name) => /^ublk(-pool\d+|\d+q\d+)$/.test(name));
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

  test('needs no thread for an idle device, and closes all devices at once', async () => {
    await using pool = await createReactorPool({ reactors: 2 });
    const target = targets.null({ size: '1GiB' });
    const create = () => createDevice({ target, pool, depth: 8 });
    const devices = await Promise.all(Array.from({ length: DEVICES }, create));
    await vi.waitFor(() => {
      const all = threads();
      const lasting = all.filter((name) => name !== 'ublk-control');
      expect(lasting).toEqual(['ublk-pool0', 'ublk-pool1', 'ublk-spare', 'ublk-supervisor']);
      expect(all.length - lasting.length).toBeLessThanOrEqual(2);
    }, 30_000);
    const ends = await Promise.all(
      devices.map((device) => device.close().then(() => device.closed)),
    );
    expect(ends).toEqual(devices.map(() => 'closed'));
  });

  test('adds a reactor when its tables are full', async (context) => {
    await need(context, 'AUTO_BUF_REG');
    await using pool = await createReactorPool({ maxReactors: 2 });
    const image = randomImage(1 << 20);
    const target = targets.file(image.path, { readOnly: true });
    const devices = [];
    for (let count = 0; count < 5; count++) {
      devices.push(await createDevice({ target, pool, depth: 4096, exchange: 'per-io' }));
      expect(pool.reactors).toBe(count < 4 ? 1 : 2);
    }
    expect(reactorThreads()).toEqual(['ublk-pool0', 'ublk-pool1']);
    const disk = await open(devices[4]!.path);
    expect((await disk.readFile()).equals(image.bytes)).toBe(true);
    await disk.close();
    await Promise.all(devices.map((device) => device.close()));
  });

  test('leaves a device under a load that takes all its tags, and no request fails', async (context) => {
    await need(context, 'QUIESCE');
    await using pool = await createReactorPool({ reactors: 2 });
    const target = targets.file(randomImage(4 << 20).path);
    let device = await createDevice({ target, pool, queues: 2, depth: 8, recovery: 'queue' });
    const load = execa('fio', [
      '--name=load',
      `--filename=${device.path}`,
      '--allow_file_create=0',
      '--rw=randread',
      '--bs=4k',
      '--direct=1',
      '--ioengine=libaio',
      '--iodepth=64',
      '--numjobs=2',
      '--time_based',
      '--runtime=8',
    ]);
    for (let time = 0; time < 3; time++) {
      await pause(1000);
      await device.quiesce();
      device = await recoverDevice(device.id, { target, pool });
    }
    await expect(load).resolves.toMatchObject({ exitCode: 0 });
    await device.close();
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
