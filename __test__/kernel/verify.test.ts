import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';

import { targets, type DeviceOptions } from '../../src/index.ts';
import { fioVerify } from './fio.ts';
import { temporaryFolder } from './image.ts';
import { createOrSkip, expectNoDevices, isTestMachine, withUblk } from './machine.ts';
import { makeNullDisk, removeNullDisk } from './null-disk.ts';

const run = promisify(execFile);
const MIB = 1024 * 1024;
const SIZE = 64 * MIB;
const BAD = { firstSector: 2048, lastSector: 4095 };

const BUFFERS: Pick<DeviceOptions, 'buffers' | 'splitRegister'>[] = [
  { buffers: 'auto' },
  { buffers: 'register' },
  { buffers: 'register', splitRegister: true },
  { buffers: ['auto', 'user-copy'] },
  { buffers: 'user-copy' },
  { buffers: 'get-data' },
  { buffers: 'copy' },
];

/** Every buffer mode in every exchange that allows it. */
const MODES = (['per-io', 'batch'] as const).flatMap((exchange) =>
  BUFFERS.filter(({ buffers }) => exchange === 'per-io' || buffers !== 'get-data').map((mode) =>
    Object.assign({ exchange }, mode),
  ),
);

withUblk('data', () => {
  afterEach(expectNoDevices);

  describe.runIf(isTestMachine)('on a block device', () => {
    let disk: string;
    let badDisk: string;
    beforeAll(async () => {
      disk = await makeNullDisk('ublkgood', {});
      const badblocks = `+${BAD.firstSector}-${BAD.lastSector}`;
      badDisk = await makeNullDisk('ublkbad', { badblocks });
    });
    afterAll(() => {
      removeNullDisk('ublkgood');
      removeNullDisk('ublkbad');
    });

    test.for(MODES)(
      'is what fio wrote ($buffers, split: $splitRegister, $exchange)',
      async (mode, context) => {
        const target = targets.file(disk);
        await using device = await createOrSkip(context, { target, queues: 2, ...mode });
        await fioVerify(device);
        expect(device.stats().total.errors).toBe(0);
      },
    );

    test.for(MODES)(
      'fails where the disk fails, and only there ($buffers, $exchange)',
      async (mode, context) => {
        await using device = await createOrSkip(context, {
          target: targets.file(badDisk),
          ...mode,
        });
        const dd = (sector: number) =>
          run('dd', [
            `if=${device.path}`,
            'of=/dev/null',
            'bs=512',
            `skip=${sector}`,
            'count=8',
            'iflag=direct',
          ]);
        await dd(0);
        await expect(dd(BAD.firstSector)).rejects.toThrow('Input/output error');
        await dd(BAD.lastSector + 1);
        expect(device.stats().total.errors).toBeGreaterThan(0);
      },
    );
  });

  describe.each([1, 2])('in a file, with %s queues,', (queues) => {
    test.for(MODES)(
      'is what fio wrote ($buffers, split: $splitRegister, $exchange)',
      async (mode, context) => {
        const image = join(temporaryFolder(), 'disk.img');
        writeFileSync(image, '');
        await truncate(image, SIZE);
        const target = targets.file(image);
        await using device = await createOrSkip(context, { target, queues, ...mode });
        await fioVerify(device);
        expect(device.stats().total.errors).toBe(0);
      },
    );
  });

  test.for(MODES)(
    'beyond the end of a file that was cut are zeros ($buffers, $exchange)',
    async (mode, context) => {
      const image = join(temporaryFolder(), 'disk.img');
      const bytes = Buffer.alloc(4 * MIB, 0xa5);
      writeFileSync(image, bytes);
      const copy = join(temporaryFolder(), 'copy');
      await using device = await createOrSkip(context, { target: targets.file(image), ...mode });
      const end = MIB + 12_345;
      await truncate(image, end);
      await run('dd', [`if=${device.path}`, `of=${copy}`, 'bs=1M', 'iflag=direct']);
      expect(readFileSync(copy).equals(bytes.fill(0, end))).toBe(true);
      expect(device.stats().total.zeroFilledBytes).toBe(4 * MIB - end);
    },
  );
});
