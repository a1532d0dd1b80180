import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';

import { execa } from 'execa';
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';

import { deleteDevice, getDeviceInfo, targets } from '../../src/index.ts';
import { writeBytes } from './bytes.ts';
import { fioAll } from './fio.ts';
import { fleet, NO_TROUBLE } from './fleet.ts';
import { folderOfTests, sparseImage } from './image.ts';
import { createOrSkip, expectNoDevices, need, withUblk } from './machine.ts';
import { isBrief, modesOf } from './modes.ts';
import { startServer } from './server.ts';

const MIB = 1024 * 1024;
/** Where the metadata begins in its file. */
const HEADER = 4096;
const MODES = modesOf('auto', 'register', 'user-copy');
/** Briefly, zero copy in both exchanges, and a server that copies. */
const FEW_MODES = MODES.filter(
  ({ buffers, exchange }) =>
    !isBrief || buffers === 'auto' || (buffers === 'user-copy' && exchange === 'per-io'),
);

function image(size: number): { path: string; metadata: string } {
  const path = sparseImage(size);
  return { path, metadata: `${path}.metadata` };
}

/** The CRC-16 of T10 DIF: polynomial 0x8bb7, nothing reflected, from 0. */
function crc16(bytes: Uint8Array): number {
  let crc = 0;
  for (const byte of bytes) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x8bb7 : crc << 1;
    crc &= 0xffff;
  }
  return crc;
}

/** Reads and writes of all sizes that meet on a few sectors. The kernel checks what is read. */
const CROWD = [
  '--rw=randrw',
  '--norandommap=1',
  '--bssplit=512/40:4k/40:32k/20',
  '--blockalign=512',
  '--size=128k',
] as const;

/** Reads the sectors of {@link CROWD}; fails where data and metadata are not of one write. */
const readCrowd = (device: string) =>
  execa('dd', [`if=${device}`, 'of=/dev/null', 'bs=128k', 'count=1', 'iflag=direct']);

async function flip(path: string, position: number): Promise<void> {
  await using file = await open(path, 'r+');
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, position);
  await file.write(Buffer.of(buffer[0]! ^ 1), 0, 1, position);
}

const readSector = (device: string, sector: number) =>
  execa('dd', [
    `if=${device}`,
    'of=/dev/null',
    'bs=512',
    'count=1',
    `skip=${sector}`,
    'iflag=direct',
  ]);

withUblk('a device with integrity', () => {
  afterEach(expectNoDevices);

  describe('in a file', () => {
    const folder = folderOfTests();
    const devices = fleet({
      modes: MODES,
      options(mode) {
        const path = sparseImage(32 * MIB, folder, `${MODES.indexOf(mode)}.img`);
        return {
          target: targets.file(path, { integrity: { checksum: 'crc16' } }),
          queues: 2,
          ...mode,
        };
      },
    });
    test.for(MODES)('holds what fio wrote ($buffers, $exchange)', (mode, context) => {
      const outcome = devices.of(mode, context);
      expect(outcome.device.features).toContain('INTEGRITY');
      expect(outcome.trouble).toEqual(NO_TROUBLE);
    });
  });

  test.for(FEW_MODES)(
    'keeps the tuples that the kernel makes ($buffers, $exchange)',
    async (mode, context) => {
      const { path, metadata } = image(8 * MIB);
      const target = targets.file(path, { integrity: {} });
      await using device = await createOrSkip(context, { target, ...mode });
      const bytes = randomBytes(2 * MIB);
      await writeBytes(device, 3 * MIB, bytes);
      await device.close();
      const kept = readFileSync(metadata).subarray(HEADER, HEADER + (8 * MIB) / 64);
      expect(kept.subarray(0, 64).equals(Buffer.alloc(64, 0xff))).toBe(true);
      const first = (3 * MIB) / 512;
      for (let sector = 0; sector < bytes.length / 512; sector += 37) {
        const tuple = kept.subarray((first + sector) * 8, (first + sector) * 8 + 8);
        const data = bytes.subarray(sector * 512, sector * 512 + 512);
        expect(tuple.readUInt16BE(0)).toBe(crc16(data));
        expect(tuple.readUInt32BE(4)).toBe(first + sector);
      }
    },
  );

  describe.each([
    ['crc16', 'T10-DIF-TYPE1-CRC', 8],
    ['ip', 'T10-DIF-TYPE1-IP', 8],
    ['crc64', 'EXT-DIF-TYPE1-CRC64', 16],
  ] as const)('of %s', (checksum, format, size) => {
    test('fails to read what was changed behind its back, and only that', async (context) => {
      const { path, metadata } = image(8 * MIB);
      const target = targets.file(path, { integrity: { checksum } });
      const bytes = randomBytes(MIB);
      {
        await using device = await createOrSkip(context, { target });
        const integrity = (name: string) =>
          readFileSync(`/sys/block/ublkb${device.id}/integrity/${name}`, 'utf8').trim();
        expect(integrity('format')).toBe(format);
        await writeBytes(device, 0, bytes);
      }
      await flip(path, 100 * 512);
      await flip(metadata, HEADER + 200 * size);
      await using device = await createOrSkip(context, { target });
      await readSector(device.path, 99);
      await expect(readSector(device.path, 100)).rejects.toThrow(/dd: error reading/);
      await expect(readSector(device.path, 200)).rejects.toThrow(/dd: error reading/);
      await readSector(device.path, 201);
      await readSector(device.path, 10_000);
    });
  });

  test.for(FEW_MODES)(
    'keeps data and metadata together where reads and writes meet ($buffers, $exchange)',
    async (mode, context) => {
      const target = targets.file(sparseImage(8 * MIB), { integrity: {} });
      await using device = await createOrSkip(context, { target, queues: 2, ...mode });
      const job = { path: device.path };
      expect(await fioAll([job, job], [...CROWD, '--io_size=2M'])).toEqual([0, 0]);
      await readCrowd(device.path);
      expect(device.stats().total.errors).toBe(0);
    },
  );

  test('keeps them together when its server is killed under load', async (context) => {
    await need(context, 'INTEGRITY', 'USER_RECOVERY_REISSUE');
    const path = sparseImage(8 * MIB);
    const shape = ['--queues', '2', '--recovery', 'reissue'];
    const kind = ['file', path, '--integrity', 'crc16'];
    let { server } = await startServer('add', ...kind, ...shape);
    const load = execa(
      'fio',
      ['--name=crowd', '--filename=/dev/ublkb0', '--ioengine=libaio', '--iodepth=32', '--direct=1']
        .concat(CROWD)
        .concat('--allow_file_create=0', '--time_based', '--runtime=600', '--randrepeat=0'),
      { reject: false },
    );
    onTestFinished(() => void load.kill('SIGKILL'));
    for (let kill = 0; kill < 2; kill += 1) {
      await new Promise((resolve) => setTimeout(resolve, 500 + Math.random() * 1000));
      server.kill('SIGKILL');
      await server;
      await vi.waitFor(async () => expect((await getDeviceInfo(0)).state).toBe('quiesced'), {
        timeout: 60_000,
      });
      ({ server } = await startServer('recover', '0', ...kind));
    }
    expect(load.exitCode).toBeNull();
    load.kill('SIGINT');
    // fio adds its errors to what says that a signal has ended it.
    expect((await load).exitCode).toBe(128);
    await readCrowd('/dev/ublkb0');
    server.kill('SIGTERM');
    await server;
    await deleteDevice(0);
  });

  test('has the metadata that was asked for', async (context) => {
    const integrity = { metadataSize: 64, piOffset: 56, capable: true, tagSize: 2 };
    const target = targets.null({ size: '64MiB', integrity: { ...integrity, checksum: 'ip' } });
    await using device = await createOrSkip(context, { target });
    const shown = (name: string) =>
      readFileSync(`/sys/block/ublkb${device.id}/integrity/${name}`, 'utf8').trim();
    expect(shown('device_is_integrity_capable')).toBe('1');
    expect(shown('protection_interval_bytes')).toBe('512');
    expect(shown('tag_size')).toBe('2');
  });
});
