import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';

import { targets } from '../../src/index.ts';
import { MIXED, VERIFY } from './fio.ts';
import { fleet, NO_TROUBLE } from './fleet.ts';
import { folderOfTests, sparseImage, temporaryFolder } from './image.ts';
import { createOrSkip, expectNoDevices, isTestMachine, withUblk } from './machine.ts';
import { isBrief, KINDS, MODES, SERVED_MODES } from './modes.ts';
import { makeNullDisk, removeNullDisk } from './null-disk.ts';

const run = promisify(execFile);
const MIB = 1024 * 1024;
const SIZE = 32 * MIB;
/** Of each of so many devices: as many requests as ever, in fewer bytes. */
const LITTLE = [`--size=${4 * MIB}`, '--bssplit=4k/60:16k/25:128k/13:1M/2'];
const BAD = { firstSector: 2048, lastSector: 4095 };

withUblk('data', () => {
  afterEach(expectNoDevices);

  describe.runIf(isTestMachine)('on a block device', () => {
    const disk = (index: number) => `ublkgood${index}`;
    let badDisk: string;
    beforeAll(async () => {
      for (const index of MODES.keys()) await makeNullDisk(disk(index), { size: '32' });
      const badblocks = `+${BAD.firstSector}-${BAD.lastSector}`;
      badDisk = await makeNullDisk('ublkbad', { badblocks });
    });
    afterAll(() => {
      for (const index of MODES.keys()) removeNullDisk(disk(index));
      removeNullDisk('ublkbad');
    });

    const devices = fleet({
      modes: MODES,
      options(mode) {
        const target = targets.file(`/dev/${disk(MODES.indexOf(mode))}`);
        return { target, queues: 2, ...mode };
      },
    });
    test.for(MODES)(
      'is what fio wrote ($buffers, split: $splitRegister, $exchange)',
      (mode, context) => {
        expect(devices.of(mode, context).trouble).toEqual(NO_TROUBLE);
      },
    );

    test.for(KINDS)(
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
    const folder = folderOfTests();
    const devices = fleet({
      modes: SERVED_MODES,
      options(mode) {
        const path = sparseImage(SIZE, folder, `${SERVED_MODES.indexOf(mode)}.img`);
        return { target: targets.file(path), queues, ...mode };
      },
      how: [...MIXED, ...VERIFY, ...LITTLE],
    });
    test.for(SERVED_MODES)('is what fio wrote (%o)', (mode, context) => {
      expect(devices.of(mode, context).trouble).toEqual(NO_TROUBLE);
    });
  });

  describe.each(isBrief ? [2] : [1, 2])('that goes nowhere, with %s queues,', (queues) => {
    const target = targets.null({ size: SIZE });
    const devices = fleet({
      modes: SERVED_MODES,
      options: (mode) => ({ target, queues, ...mode }),
      how: [...MIXED, '--rw=randrw', ...LITTLE],
    });
    test.for(SERVED_MODES)('is asked for and taken (%o)', (mode, context) => {
      const { total, trouble } = devices.of(mode, context);
      expect(trouble).toEqual(NO_TROUBLE);
      expect(total.readBytes + total.writeBytes).toBeGreaterThanOrEqual(4 * MIB);
    });
  });

  test.for(KINDS)(
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
