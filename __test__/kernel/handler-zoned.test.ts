import { execa } from 'execa';
import { afterEach, expect, test, vi } from 'vitest';

import { handler, IoError, type Handler, type Zone } from '../../src/index.ts';
import { carries } from './filesystem.ts';
import { createOrSkip, expectNoDevices, withUblk } from './machine.ts';

const MIB = 1024 * 1024;
const ZONE = 4 * MIB;
const ZONES = 16;

interface ZonedDisk {
  readonly target: Handler;
  /** How many appends it has been asked for. */
  readonly appends: number;
}

/** A zoned disk in memory that knows no more of zones than a client must see. */
function zonedDisk(zones = ZONES): ZonedDisk {
  const disk = Buffer.alloc(zones * ZONE);
  const written = Array.from({ length: zones }, () => 0);
  const open = new Set<number>();
  const zoneAt = (offset: number): number => Math.floor(offset / ZONE);
  const describe = (number: number): Zone => {
    const offset = number * ZONE;
    const bytes = written[number]!;
    const partly = open.has(number) ? 'explicitlyOpen' : 'implicitlyOpen';
    const condition = bytes === 0 && !open.has(number) ? 'empty' : bytes === ZONE ? 'full' : partly;
    return { offset, condition, writePointer: offset + bytes };
  };
  const store = (zone: number, data: Buffer): number => {
    const place = zone * ZONE + written[zone]!;
    if (written[zone]! + data.length > ZONE) throw new IoError('EIO');
    data.copy(disk, place);
    written[zone]! += data.length;
    return place;
  };
  const reset = (zone: number): void => {
    written[zone] = 0;
    open.delete(zone);
  };
  let appends = 0;
  const target = handler({
    size: disk.length,
    zones: { size: ZONE },
    read({ data, offset }) {
      const end = zoneAt(offset) * ZONE + written[zoneAt(offset)]!;
      data.fill(0);
      disk.copy(data, 0, offset, Math.max(offset, Math.min(offset + data.length, end)));
    },
    write({ data, offset }) {
      const zone = zoneAt(offset);
      if (offset !== zone * ZONE + written[zone]!) throw new IoError('EIO');
      store(zone, data);
    },
    flush() {},
    async reportZones({ offset, length }) {
      await Promise.resolve();
      const first = zoneAt(offset);
      const count = Math.min(length / 64, zones - first);
      return Array.from({ length: count }, (_, index) => describe(first + index));
    },
    zoneAppend({ data, offset }) {
      appends += 1;
      return store(zoneAt(offset), data);
    },
    zoneOpen: ({ offset }) => void open.add(zoneAt(offset)),
    zoneClose: ({ offset }) => void open.delete(zoneAt(offset)),
    zoneFinish: ({ offset }) => void (written[zoneAt(offset)] = ZONE),
    zoneReset: ({ offset }) => reset(zoneAt(offset)),
    zoneResetAll: () => written.forEach((_, zone) => reset(zone)),
  });
  return {
    target,
    get appends() {
      return appends;
    },
  };
}

withUblk('a handler with zones', () => {
  afterEach(expectNoDevices);

  test('is a zoned device', async (context) => {
    await using device = await createOrSkip(context, { target: zonedDisk().target });
    expect(device.features).toContain('ZONED');
    expect(device.buffers.mode).toBe('user-copy');
    const conditions = async () => {
      const { stdout } = await execa('blkzone', ['report', device.path]);
      return [...stdout.matchAll(/zcond: *\d+\((\w\w)\)/g)]
        .map(([, condition]) => condition)
        .join(' ');
    };
    const command = (verb: string, number: number) =>
      execa('blkzone', [verb, '-o', String((number * ZONE) / 512), '-c', '1', device.path]);
    const write = (at: number) =>
      execa('dd', [
        'if=/dev/urandom',
        `of=${device.path}`,
        'bs=4k',
        `seek=${at / 4096}`,
        'count=1',
        'oflag=direct',
      ]);
    await write(ZONE);
    await expect(write(ZONE)).rejects.toThrow('Input/output error');
    await command('open', 2);
    await command('finish', 3);
    expect((await conditions()).slice(0, 14)).toBe('em oi oe fu em');
    await command('reset', 3);
    await command('close', 2);
    expect((await conditions()).slice(0, 14)).toBe('em oi em em em');
    await execa('blkzone', ['reset', device.path]);
    expect((await conditions()).slice(0, 14)).toBe('em em em em em');
  });

  test('fails a report that has no zone, or another one', async (context) => {
    let answer: Handler['reportZones'];
    const { target } = zonedDisk();
    const all = target.reportZones!;
    // The kernel asks when the device is created, too.
    const reportZones: typeof all = (request) => (answer ?? all)(request);
    await using device = await createOrSkip(context, { target: { ...target, reportZones } });
    const warning = vi.fn<(error: Error) => void>();
    device.on('warning', warning);
    for (answer of [() => [], () => [{ offset: ZONE, condition: 'empty' as const }]]) {
      const report = execa('blkzone', ['report', device.path], { timeout: 30_000 });
      await expect(report).rejects.toThrow('Input/output error');
    }
    expect(warning.mock.lastCall![0].message).toContain('zone 0 of the report is a zone at');
  });

  test('holds what fio wrote', async (context) => {
    await using device = await createOrSkip(context, { target: zonedDisk().target });
    const where = [`--filename=${device.path}`, '--zonemode=zbd', `--size=${ZONES * ZONE}`];
    const how = ['--rw=randwrite', '--bs=64k', '--ioengine=libaio', '--iodepth=8', '--direct=1'];
    const check = ['--io_size=16M', '--verify=crc32c', '--verify_fatal=1', '--randrepeat=0'];
    await execa('fio', ['--name=verify', ...where, ...how, ...check]);
    expect(device.stats().total.errors).toBe(0);
  });

  test('carries btrfs, whose appends it answers', async (context) => {
    const disk = zonedDisk(64);
    await using device = await createOrSkip(context, { target: disk.target });
    const mkfs = ['mkfs.btrfs', '-q', '-d', 'single', '-m', 'single'] as const;
    expect(await carries(device, mkfs, ['btrfs', 'check', '--readonly'])).toBe(true);
    expect(device.stats().total.errors).toBe(0);
    expect(disk.appends).toBeGreaterThan(0);
  });
});
