import { readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { execa } from 'execa';
import { afterEach, describe, expect, test } from 'vitest';

import { targets, type Device } from '../../src/index.ts';
import { expectBytes, readBytes, writeBytes } from './bytes.ts';
import { frailFolder, PAGE, type FrailDisk, type FrailFolder } from './frail-disk.ts';
import { createOrSkip, expectNoDevices, withUblk } from './machine.ts';

const MIB = 1024 * 1024;
/** Two places on the served device that lie far from each other. */
const HERE = 0;
const THERE = 512 * 1024;

const full = (byte: number): Buffer => Buffer.alloc(PAGE, byte);
const begins = (page: Buffer, text: string): boolean =>
  page.subarray(0, text.length).equals(Buffer.from(text));

async function write(
  device: Device,
  place: number,
  byte: number,
  ...flags: string[]
): Promise<void> {
  await writeBytes(device, place, full(byte), ...flags);
}

/** The byte that a whole page of the device consists of. */
async function read(device: Device, place: number): Promise<number> {
  const page = await readBytes(device, place, PAGE);
  expectBytes(page, full(page[0]!));
  return page[0]!;
}

const flush = (device: Device): Promise<unknown> =>
  execa('dd', ['if=/dev/null', `of=${device.path}`, 'conv=fsync,notrunc,nocreat']);

async function image(folder: string): Promise<string> {
  const path = join(folder, 'disk.img');
  await writeFile(path, '');
  await truncate(path, MIB);
  return path;
}

withUblk('after a sync that has failed', () => {
  afterEach(expectNoDevices);

  test('no flush and no durable write of the file succeeds until the next server', async (context) => {
    await using below = await frailFolder();
    const target = targets.file(await image(below.folder), { direct: false });
    {
      await using device = await createOrSkip(context, { target });
      await write(device, HERE, 1);
      const refused = below.disk.refuse((_place, _held, comes) => comes.equals(full(1)));
      await expect(flush(device)).rejects.toThrow(/Input\/output error/);
      expect(refused.failed).toBeGreaterThan(0);
      below.disk.mend();
      await expect(flush(device)).rejects.toThrow(/Input\/output error/);
      await expect(write(device, THERE, 2, 'dsync')).rejects.toThrow(/Input\/output error/);
      expect(await read(device, HERE)).toBe(1);
    }
    await using device = await createOrSkip(context, { target });
    await write(device, HERE, 3);
    await flush(device);
    expect(below.disk.bytes.includes(full(3))).toBe(true);
  });

  describe('of integrity’s journal', () => {
    const RECORD = 'ublk pair record';
    const failures: Record<string, Parameters<FrailDisk['refuse']>[0]> = {
      'the copy': (_place, held, comes) => comes.equals(full(2)) && !held.equals(full(1)),
      'the record': (_place, _held, comes) => begins(comes, RECORD),
      'the data': (_place, held, comes) => comes.equals(full(2)) && held.equals(full(1)),
      'the end of the record': (_place, held, comes) =>
        begins(held, RECORD) && !begins(comes, RECORD),
    };

    const openTarget = ({ folder }: FrailFolder) =>
      targets.file(join(folder, 'disk.img'), { direct: false, integrity: {} });

    test.for(Object.keys(failures))(
      'all sectors are of one write after a power cut under the next server (%s)',
      async (failure, context) => {
        const cuts: Buffer[] = [];
        {
          await using below = await frailFolder();
          const { disk } = below;
          await image(below.folder);
          const target = openTarget(below);
          {
            await using device = await createOrSkip(context, { target });
            await write(device, HERE, 1);
            await write(device, THERE, 1);
            const refused = disk.refuse(failures[failure]!);
            await expect(write(device, HERE, 2)).rejects.toThrow(/Input\/output error/);
            expect(refused.failed).toBeGreaterThan(0);
            disk.mend();
            await expect(write(device, THERE, 3)).rejects.toThrow(/Input\/output error/);
            expect(await read(device, THERE)).toBe(1);
          }
          await using device = await createOrSkip(context, { target });
          cuts.push(Buffer.from(disk.bytes));
          // Up to the place in the journal that the failed write had.
          await write(device, THERE, 1);
          await write(device, THERE, 1);
          disk.look = (_place, _held, comes) => {
            // The copy of the next write is durable, and the record is about to be.
            if (begins(comes, RECORD)) cuts.push(Buffer.from(disk.bytes));
          };
          await write(device, THERE, 4);
          disk.mend();
        }
        expect(cuts).toHaveLength(2);
        for (const left of cuts) {
          await using below = await frailFolder(left);
          await using device = await createOrSkip(context, { target: openTarget(below) });
          expect([1, 2]).toContain(await read(device, HERE));
          expect(await read(device, THERE)).toBe(1);
        }
      },
    );

    test('a file of metadata is whole after a power cut under the next server', async (context) => {
      await using below = await frailFolder();
      await image(below.folder);
      const target = openTarget(below);
      // What is there and empty is made whole, and stays if that fails.
      await writeFile(join(below.folder, 'disk.img.metadata'), '');
      const header = (page: Buffer): boolean => begins(page, 'ublk metadata');
      const refused = below.disk.refuse((_place, _held, comes) => header(comes));
      await expect(createOrSkip(context, { target })).rejects.toMatchObject({ errno: 5 });
      expect(refused.failed).toBeGreaterThan(0);
      below.disk.mend();
      await using _device = await createOrSkip(context, { target });
      expect(below.disk.bytes.includes('ublk metadata')).toBe(true);
    });
  });

  test('the state of zones is durable after a flush of the next server', async (context) => {
    await using below = await frailFolder();
    const path = await image(below.folder);
    const state = `${path}.zones`;
    const target = targets.zoned({ path, zoneSize: '256KiB', state });
    const { disk } = below;
    const wordsInFile = async () => (await readFile(state)).subarray(2 * PAGE);
    let place = 0;
    {
      await using device = await createOrSkip(context, { target });
      place = disk.bytes.indexOf(await wordsInFile());
      expect(place).toBeGreaterThan(0);
      await write(device, HERE, 1);
      const refused = disk.refuse((at) => at === place);
      await expect(flush(device)).rejects.toThrow(/Input\/output error/);
      expect(refused.failed).toBeGreaterThan(0);
      disk.mend();
    }
    const inPageCache = await wordsInFile();
    const areOnDisk = () =>
      disk.bytes.subarray(place, place + inPageCache.length).equals(inPageCache);
    expect(areOnDisk()).toBe(false);
    await using device = await createOrSkip(context, { target });
    await flush(device);
    // A power cut finds this, and no record.
    expect(areOnDisk()).toBe(true);
  });
});
