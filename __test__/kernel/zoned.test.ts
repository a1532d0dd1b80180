import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';

import { execa } from 'execa';
import { afterEach, describe, expect, test } from 'vitest';

import { createDevice, targets, type Device, type DeviceOptions } from '../../src/index.ts';
import { expectBytes, readBytes, writeBytes } from './bytes.ts';
import { carries } from './filesystem.ts';
import { VERIFY } from './fio.ts';
import { fleet, NO_TROUBLE } from './fleet.ts';
import { sparseImage } from './image.ts';
import { createOrSkip, expectNoDevices, withUblk } from './machine.ts';
import { isBrief } from './modes.ts';

const MIB = 1024 * 1024;
const SECTORS_OF_ZONE = (4 * MIB) / 512;

/** All but `auto` in batches: there the driver forgets where appends went. */
const MODES: Pick<DeviceOptions, 'buffers' | 'exchange'>[] = [
  { exchange: 'per-io', buffers: 'auto' },
  { exchange: 'per-io', buffers: 'register' },
  { exchange: 'per-io', buffers: 'user-copy' },
  { exchange: 'batch' },
  { exchange: 'batch', buffers: 'user-copy' },
];
/** Briefly, one mode of each way for data, and one of each exchange. */
const BTRFS_MODES = MODES.filter((_, index) => !isBrief || [0, 2, 3].includes(index));

interface Zone {
  start: number;
  length: number;
  capacity: number;
  written: number;
  condition: string;
  type: string;
}

/** What `blkzone report` says, in sectors. */
async function report(device: Device): Promise<Zone[]> {
  const { stdout } = await execa('blkzone', ['report', device.path]);
  const line =
    /start: 0x(\w+), len 0x(\w+), cap 0x(\w+), wptr 0x(\w+) .*zcond: *\d+\((\w\w)\) \[type: \d\((\w+)\)/;
  return stdout.split('\n').map((text) => {
    const [, start, length, capacity, written, condition = '', type = ''] = line.exec(text) ?? [];
    const [a, b, c, d] = [start, length, capacity, written].map((hex) => Number(`0x${hex}`));
    return { start: a!, length: b!, capacity: c!, written: d!, condition, type };
  });
}

/** Writes sectors of random bytes. */
async function write(device: Device, seek: number, count: number): Promise<Buffer> {
  const bytes = randomBytes(count * 512);
  await writeBytes(device, seek * 512, bytes);
  return bytes;
}

const zone = (number: number): number => number * SECTORS_OF_ZONE;

withUblk('a zoned device', () => {
  afterEach(expectNoDevices);

  test('reports its zones', async (context) => {
    const target = targets.zoned({
      size: '40MiB',
      zoneSize: '4MiB',
      zoneCapacity: '3MiB',
      conventionalZones: 2,
      maxOpenZones: 3,
      maxActiveZones: 5,
    });
    await using device = await createOrSkip(context, { target });
    expect(device.features).toContain('ZONED');
    const zones = await report(device);
    expect(zones.length).toBe(10);
    expect(zones[1]).toMatchObject({ type: 'CONVENTIONAL', condition: 'nw' });
    expect(zones[2]).toEqual({
      start: zone(2),
      length: SECTORS_OF_ZONE,
      capacity: (3 * MIB) / 512,
      written: 0,
      condition: 'em',
      type: 'SEQ_WRITE_REQUIRED',
    });
    const queue = (name: string) =>
      readFileSync(`/sys/block/ublkb${device.id}/queue/${name}`, 'utf8').trim();
    expect(queue('zoned')).toBe('host-managed');
    expect(queue('nr_zones')).toBe('10');
    expect([queue('max_open_zones'), queue('max_active_zones')]).toEqual(['3', '5']);
    expect(Number(queue('zone_append_max_bytes'))).toBe(MIB);
  });

  test('is written in order, zone by zone', async (context) => {
    const target = targets.zoned({ size: '32MiB', zoneSize: '4MiB' });
    await using device = await createOrSkip(context, { target });
    const bytes = await write(device, zone(3), 16);
    await expect(write(device, zone(3), 8)).rejects.toThrow(/Input\/output error/);
    await expect(write(device, zone(4) + 8, 8)).rejects.toThrow(/Input\/output error/);
    // After an error the kernel asks where the write pointers are before it goes on.
    await report(device);
    const more = await write(device, zone(3) + 16, 8);
    const expected = Buffer.concat([bytes, more, Buffer.alloc(16384 - 24 * 512)]);
    expectBytes(await readBytes(device, zone(3) * 512, 16384), expected);
  });

  test('opens, closes, finishes and empties zones', async (context) => {
    const target = targets.zoned({ size: '32MiB', zoneSize: '4MiB' });
    await using device = await createOrSkip(context, { target });
    const command = async (verb: string, number: number) => {
      await execa('blkzone', [verb, '-o', String(zone(number)), '-c', '1', device.path]);
    };
    const conditions = async () => (await report(device)).map((one) => one.condition).join(' ');
    await write(device, zone(1), 8);
    await write(device, zone(2), 8);
    await command('open', 3);
    await command('finish', 4);
    await command('close', 2);
    expect(await conditions()).toBe('em oi cl oe fu em em em');
    await command('reset', 4);
    await command('close', 3);
    expect(await conditions()).toBe('em oi cl em em em em em');
    await execa('blkzone', ['reset', device.path]);
    expect(await conditions()).toBe('em em em em em em em em');
    await write(device, zone(1), 8);
  });

  describe('in memory', () => {
    const target = targets.zoned({ size: '64MiB', zoneSize: '4MiB', maxOpenZones: 4 });
    const zones = [
      '--zonemode=zbd',
      '--max_open_zones=4',
      '--rw=randwrite',
      '--bs=64k',
      '--size=64M',
    ];
    const devices = fleet({
      modes: MODES,
      options: (mode) => ({ target, queues: 2, ...mode }),
      how: [...zones, '--io_size=32M', ...VERIFY],
    });
    test.for(MODES)('holds what fio wrote ($buffers, $exchange)', (mode, context) => {
      expect(devices.of(mode, context).trouble).toEqual(NO_TROUBLE);
    });
  });

  describe('in a file', () => {
    test('is found again as it was left', async (context) => {
      const path = sparseImage(33 * MIB);
      const target = targets.zoned({ path, zoneSize: '4MiB' });
      await using first = await createOrSkip(context, { target });
      await write(first, zone(1), 8);
      await execa('blkzone', ['finish', '-o', String(zone(2)), '-c', '1', first.path]);
      const left = await report(first);
      await first.close();
      await using second = await createDevice({ target });
      expect(await report(second)).toEqual(left);
      await write(second, zone(1) + 8, 8);
      await second.close();
      const other = targets.zoned({ path, zoneSize: '8MiB' });
      await expect(createDevice({ target: other })).rejects.toMatchObject({
        code: 'ERR_UBLK_BAD_BACKEND',
        message: expect.stringContaining('another shape') as string,
      });
    });

    test.for(BTRFS_MODES)(
      'carries btrfs, which appends ($buffers, $exchange)',
      async (mode, context) => {
        const target = targets.zoned({ path: sparseImage(256 * MIB), zoneSize: '4MiB' });
        await using device = await createOrSkip(context, { target, queues: 2, ...mode });
        const mkfs = ['mkfs.btrfs', '-q', '-d', 'single', '-m', 'single'] as const;
        expect(await carries(device, mkfs, ['btrfs', 'check', '--readonly'])).toBe(true);
        expect(device.stats().total.errors).toBe(0);
      },
    );
  });

  test('registers by hand in batches', async (context) => {
    const target = targets.zoned({ size: '32MiB', zoneSize: '4MiB' });
    await using device = await createOrSkip(context, { target, exchange: 'batch' });
    expect(device.features).not.toContain('AUTO_BUF_REG');
    const asked = createDevice({ target, exchange: 'batch', buffers: 'auto' });
    await expect(asked).rejects.toMatchObject({ code: 'ERR_UBLK_INVALID_ARGUMENT' });
  });

  test('cannot be had where the kernel copies', async () => {
    const target = targets.zoned({ size: '32MiB', zoneSize: '4MiB' });
    await expect(createDevice({ target, buffers: 'copy' })).rejects.toMatchObject({
      code: 'ERR_UBLK_INVALID_ARGUMENT',
      message: expect.stringMatching(/zoned.*'copy'/) as string,
    });
  });
});
