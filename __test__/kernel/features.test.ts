import { open } from 'node:fs/promises';
import { existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { execa } from 'execa';
import { afterEach, expect, test } from 'vitest';

import {
  createDevice,
  deleteDevice,
  setDeviceAffinity,
  stopDevice,
  targets,
  type Feature,
} from '../../src/index.ts';
import { fioVerify } from './fio.ts';
import { sparseImage, temporaryFolder } from './image.ts';
import { createOrSkip, expectNoDevices, need, queueThreads, withUblk } from './machine.ts';
import { startServer, ublk } from './server.ts';

const target = targets.null({ size: '64MiB' });

/** A disk with one partition, as its first sector says. */
function partitioned(): string {
  const path = join(temporaryFolder(), 'disk.img');
  const sector = Buffer.alloc(512);
  sector.set([0, 0, 2, 0, 0x83, 0, 3, 0], 446);
  sector.writeUInt32LE(8, 454);
  sector.writeUInt32LE(1024, 458);
  sector.set([0x55, 0xaa], 510);
  writeFileSync(path, sector);
  truncateSync(path, 1 << 20);
  return path;
}

function cpusOf(thread: string): string {
  const status = readFileSync(`/proc/self/task/${thread}/status`, 'utf8');
  return /^Cpus_allowed_list:\s+(\S+)/m.exec(status)?.[1] ?? '';
}

withUblk('a device', () => {
  afterEach(expectNoDevices);

  test('has limits as narrow as it was told', async (context) => {
    const limits = { dmaAlignment: 4096, maxSegments: 32, maxSegmentSize: '32KiB' };
    await using device = await createOrSkip(context, {
      target,
      buffers: 'register',
      limits: { ...limits, segmentBoundary: 4096 },
    });
    const setting = (name: string) =>
      Number(readFileSync(`/sys/block/ublkb${device.id}/queue/${name}`, 'utf8'));
    expect(setting('dma_alignment')).toBe(4095);
    expect(setting('max_segments')).toBe(32);
    expect(setting('max_segment_size')).toBe(32 << 10);
  });

  test('that somebody has open is stopped by force only', async (context) => {
    await need(context, 'SAFE_STOP_DEV');
    await using device = await createDevice({ target });
    const opener = await open(device.path, 'r');
    const refused = await ublk('stop', String(device.id));
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toContain(`ublk device ${device.id} is in use`);
    expect(refused.stderr).toContain(String(process.pid));
    await expect(stopDevice(device.id)).rejects.toMatchObject({ code: 'ERR_UBLK_BUSY' });
    expect(await stopDevice(device.id, { force: true })).toBe('nothing');
    await opener.close();
    expect(await device.closed).toBe('stopped');
    await using second = await createDevice({ target });
    await execa('udevadm', ['settle']);
    expect(await stopDevice(second.id)).toBe('openers');
  });

  test('that is mounted is not stopped, whatever the kernel', async () => {
    const path = sparseImage(32 << 20);
    await using device = await createDevice({ target: targets.file(path) });
    await execa('mkfs.ext4', ['-q', device.path]);
    const folder = temporaryFolder();
    await execa('mount', [device.path, folder]);
    await expect(stopDevice(device.id)).rejects.toMatchObject({ code: 'ERR_UBLK_BUSY' });
    await execa('umount', [folder]);
  });

  test('has its partitions looked for, or not', async (context) => {
    const image = targets.file(partitioned());
    await using scanned = await createDevice({ target: image });
    await expect.poll(() => existsSync(`${scanned.path}p1`), { timeout: 20_000 }).toBe(true);
    await scanned.close();
    await using plain = await createOrSkip(context, { target: image, partScan: false });
    await execa('udevadm', ['settle']);
    expect(existsSync(`${plain.path}p1`)).toBe(false);
    await execa('blockdev', ['--rereadpt', plain.path]);
    await expect.poll(() => existsSync(`${plain.path}p1`), { timeout: 20_000 }).toBe(true);
  });

  test.for(['per-io', 'batch'] as const)(
    'finds its descriptors wherever they lie (%s)',
    async (exchange, context) => {
      const path = sparseImage(64 << 20);
      const file = targets.file(path);
      const options = { target: file, queues: 2, ioDescSize: 104, exchange };
      await using device = await createOrSkip(context, options);
      await fioVerify(device);
      expect(device.features).toContain('IO_DESC_SIZE');
    },
  );

  test('has its threads where they were put, and moved', async () => {
    await using device = await createDevice({ target, affinity: [0] });
    expect(queueThreads(device.id).map(cpusOf)).toEqual(['0']);
    expect(await setDeviceAffinity(device.id, [0, 1])).toBe(1);
    expect(queueThreads(device.id).map(cpusOf)).toEqual(['0-1']);
    const { server } = await startServer('add', 'null', '--size', '1MiB', '--id', '9');
    const moved = await ublk('set-affinity', '9', '0', '--json');
    expect(JSON.parse(moved.stdout)).toEqual({ id: 9, cpus: [0], threads: 1 });
    const wrong = await ublk('set-affinity', '9', '4000');
    expect(wrong.stderr).toContain('has none of these CPUs');
    server.kill('SIGTERM');
    await server;
  });

  test('shows what it got of what the kernel has', async () => {
    await using device = await createDevice({ target, buffers: 'copy' });
    const { stdout } = await ublk('features', String(device.id), '--json');
    const shown = JSON.parse(stdout) as (Feature & { device: boolean })[];
    const got = shown.filter((one) => one.device).map((one) => one.name);
    expect(got).toEqual(device.features);
    expect(got).not.toContain('AUTO_BUF_REG');
  });

  test('is not recovered by accident: it ends with its server', async () => {
    const { server } = await startServer('add', 'null', '--size', '1MiB');
    server.kill('SIGKILL');
    await server;
    const { exitCode, stderr } = await ublk('recover', '0', 'null', '--size', '1MiB');
    expect(exitCode).toBe(2);
    expect(stderr).toContain('it was created without');
    await deleteDevice(0);
  });
});
