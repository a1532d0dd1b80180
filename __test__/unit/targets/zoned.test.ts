import { resolve } from 'node:path';

import { expect, test } from 'vitest';

import { targets, toNativeTarget } from '../../../src/targets/index.ts';

const ZONES = { size: 64 << 20, conventional: 0, maxOpen: 0, maxActive: 0 };

test('zones in memory are as large as size says', () => {
  const target = targets.zoned({ size: '1GiB', zoneSize: '64MiB' });
  expect(Object.isFrozen(target)).toBe(true);
  expect(toNativeTarget(target)).toEqual({ kind: 'zoned', size: 1 << 30, zones: ZONES });
});

test('zones in a file keep their state where they are told to', () => {
  const target = targets.zoned({
    path: 'disk.img',
    state: 'zones',
    zoneSize: '64MiB',
    zoneCapacity: '48MiB',
    conventionalZones: 2,
    maxOpenZones: 3,
    maxActiveZones: 4,
  });
  expect(toNativeTarget(target)).toEqual({
    kind: 'zoned',
    path: resolve('disk.img'),
    zones: {
      size: 64 << 20,
      capacity: 48 << 20,
      conventional: 2,
      maxOpen: 3,
      maxActive: 4,
      state: resolve('zones'),
    },
  });
});

test('a state is made over data only where that is asked for', () => {
  const zones = { path: 'disk.img', zoneSize: '64MiB' };
  expect(toNativeTarget(targets.zoned({ ...zones, create: false })).zones).toEqual(ZONES);
  const asked = toNativeTarget(targets.zoned({ ...zones, create: true }));
  expect(asked.zones).toEqual({ ...ZONES, create: true });
});

test.each([
  [{ zoneSize: '64M' }, /needs a size or a path/],
  [{ size: '1G' }, /it must be a whole number of bytes/],
  [{ size: '1G', zoneSize: '48M' }, /zoneSize is 48M; it must be a power of two/],
  [{ size: '1G', zoneSize: '4k' }, /from 64 KiB to 512 GiB/],
  [{ size: '1G', zoneSize: '64M', state: 'zones' }, /state is given without path/],
  [{ size: '1G', zoneSize: '64M', create: true }, /create is given without path/],
  [{ path: 'disk', zoneSize: '64M', create: 1 }, /create is 1/],
  [{ size: '1G', zoneSize: '64M', maxOpenZones: -1 }, /maxOpenZones is -1/],
  [
    { size: '1G', zoneSize: '64M', maxOpenZones: 3, maxActiveZones: 2 },
    /maxOpenZones is 3, more than maxActiveZones \(2\)/,
  ],
])('refuses %o', (options, message) => {
  expect(() => targets.zoned(options as never)).toThrow(message);
});
