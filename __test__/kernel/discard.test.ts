import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';

import { createDevice, targets } from '../../src/index.ts';
import { temporaryFolder } from './image.ts';
import { expectNoDevices, isTestMachine, withUblk } from './machine.ts';
import { makeNullDisk, removeNullDisk } from './null-disk.ts';

const run = promisify(execFile);
const MIB = 1024 * 1024;
const DISK = 'ublkdisk';

/** How much of a file takes up space, in bytes. */
const allocated = (path: string): number => statSync(path).blocks * 512;

withUblk('discarded and zeroed ranges', () => {
  let disk: string;
  beforeAll(async () => {
    if (isTestMachine) disk = await makeNullDisk(DISK, { discard: '1' });
  });
  afterAll(() => {
    if (isTestMachine) removeNullDisk(DISK);
  });
  afterEach(expectNoDevices);

  describe.runIf(isTestMachine)('of a file on ext4', () => {
    const IMAGE = 16 * MIB;
    let mount: string;
    let image: string;

    beforeAll(async () => {
      mount = '/run/ublk-discard';
      mkdirSync(mount);
      await run('mkfs.ext4', ['-q', disk]);
      await run('mount', [disk, mount]);
      image = join(mount, 'disk.img');
    });
    afterAll(async () => {
      await run('umount', [mount]);
      rmdirSync(mount);
    });

    /** Serves the image full of ones, runs a command on the device, answers what became of it. */
    async function after(command: string, args: (device: string) => string[]) {
      writeFileSync(image, Buffer.alloc(IMAGE, 0xff), { flush: true });
      await run('sync', ['-f', image]);
      const before = allocated(image);
      await using device = await createDevice({ target: targets.file(image) });
      await run(command, args(device.path));
      const copy = join(temporaryFolder(), 'copy');
      await run('dd', [`if=${device.path}`, `of=${copy}`, 'bs=1M', 'iflag=direct']);
      const freed = before - allocated(image);
      return { bytes: readFileSync(copy), freed, stats: device.stats().total };
    }

    const half = Buffer.concat([Buffer.alloc(IMAGE / 2), Buffer.alloc(IMAGE / 2, 0xff)]);
    const range = ['--offset', '0', '--length', String(IMAGE / 2)];

    test('a discard gives the space back', async () => {
      const { bytes, freed, stats } = await after('blkdiscard', (path) => ['-f', ...range, path]);
      expect(bytes.equals(half)).toBe(true);
      expect(freed).toBe(IMAGE / 2);
      expect(stats).toMatchObject({ errors: 0, writeBytes: 0 });
      expect(stats.discards).toBeGreaterThan(0);
    });

    test('zeros that may be holes become holes', async () => {
      const { bytes, freed, stats } = await after('fallocate', (path) => ['-p', ...range, path]);
      expect(bytes.equals(half)).toBe(true);
      expect(freed).toBe(IMAGE / 2);
      expect(stats).toMatchObject({ errors: 0, writeBytes: 0 });
      expect(stats.writeZeroes).toBeGreaterThan(0);
    });

    test('zeros that must not be holes keep their space', async () => {
      const zeroout = (path: string) => ['-f', '-z', ...range, path];
      const { bytes, freed, stats } = await after('blkdiscard', zeroout);
      expect(bytes.equals(half)).toBe(true);
      expect(freed).toBe(0);
      expect(stats).toMatchObject({ errors: 0, writeBytes: 0 });
      expect(stats.writeZeroes).toBeGreaterThan(0);
    });
  });

  describe.runIf(isTestMachine)('of a disk', () => {
    test.each(['-f', '-f -z'])('read as zeros after blkdiscard %s', async (flags) => {
      const ones = join(temporaryFolder(), 'ones');
      writeFileSync(ones, Buffer.alloc(4 * MIB, 0xff));
      await run('dd', [`if=${ones}`, `of=${disk}`, 'bs=1M', 'oflag=direct']);
      await using device = await createDevice({ target: targets.file(disk) });
      await run('blkdiscard', [...flags.split(' '), '--length', String(4 * MIB), device.path]);
      const copy = join(temporaryFolder(), 'copy');
      await run('dd', [`if=${device.path}`, `of=${copy}`, 'bs=1M', 'count=4', 'iflag=direct']);
      expect(readFileSync(copy).equals(Buffer.alloc(4 * MIB))).toBe(true);
      const { discards, errors } = device.stats().total;
      expect({ discarded: discards > 0, errors }).toEqual({
        discarded: !flags.includes('-z'),
        errors: 0,
      });
    });
  });
});
