import { readdirSync, readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';

import { afterEach, expect, test } from 'vitest';

import { createDevice, createReactorPool, targets } from '../../src/index.ts';
import { randomImage } from './image.ts';
import { expectNoDevices, withUblk } from './machine.ts';

const DEVICES = 12;

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
    const image = randomImage(1 << 20);
    const target = targets.file(image.path, { readOnly: true });
    const options = { target, pool, exchange, depth: 64 };
    const devices = [];
    for (let count = 0; count < DEVICES; count++) devices.push(await createDevice(options));
    expect(reactorThreads()).toEqual(['ublk-pool0', 'ublk-pool1']);
    for (const { path } of devices.slice(-5)) {
      await using disk = await open(path);
      expect((await disk.readFile()).equals(image.bytes)).toBe(true);
    }
    await Promise.all(devices.map((device) => device.close()));
  });
});
