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
