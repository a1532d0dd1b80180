import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { execa } from 'execa';
import { afterEach, expect, test } from 'vitest';

import { createDevice, deleteDevice, targets, type Device, type Handler } from '../../src/index.ts';
import { expectBytes, readBytes, writeBytes } from './bytes.ts';
import { carries } from './filesystem.ts';
import { fioVerify } from './fio.ts';
import { randomImage, sparseImage, temporaryFolder } from './image.ts';
import { CYCLES, endLoad, pause, startLoad } from './load.ts';
import { setting } from './look.ts';
import { expectNoDevices, need, withUblk } from './machine.ts';
import { diesAndReturns, nbdkit, needServer, newQemuNbd, qemuNbd } from './nbd-server.ts';
import { startServer, ublk } from './server.ts';

const MIB = 1024 * 1024;
const MKFS = ['mkfs.ext4', '-qF'] as const;
const FSCK = ['fsck.ext4', '-fn'] as const;

/** Reads the first 4 KiB. */
function readBlock({ path }: Device) {
  const words = [`if=${path}`, 'of=/dev/null', 'iflag=direct', 'bs=4k', 'count=1'];
  return execa('dd', words, { reject: false });
}

withUblk('an NBD target', () => {
  afterEach(expectNoDevices);

  test('carries data and a file system on nbdkit', async (context) => {
    needServer(context, 'nbdkit');
    const server = await nbdkit('memory', '64M');
    await using device = await createDevice({ target: targets.nbd(server.uri) });
    expect(device.size).toBe(64 * MIB);
    expect(device.buffers.mode).toBe('copy');
    await fioVerify(device);
    expect(await carries(device, MKFS, FSCK)).toBe(true);
    await execa('blkdiscard', [device.path]);
    await execa('blkdiscard', ['-z', device.path]);
    const { flushes, discards, writeZeroes } = device.stats().total;
    expect([flushes, discards, writeZeroes].every((count) => count > 0)).toBe(true);
  });

  test('carries data and a file system on qemu-nbd, in several queues', async (context) => {
    needServer(context, 'qemu');
    const image = sparseImage(64 * MIB);
    const server = await qemuNbd(image);
    await using device = await createDevice({ target: targets.nbd(server.uri), queues: 2 });
    await fioVerify(device);
    expect(await carries(device, MKFS, FSCK)).toBe(true);
  });

  test('carries data and a file system on a server with extended headers, which comes back', async (context) => {
    const server = await newQemuNbd(context, sparseImage(64 * MIB), '--cache=writeback');
    await using device = await createDevice({ target: targets.nbd(server.uri), queues: 2 });
    await fioVerify(device);
    expect(await carries(device, MKFS, FSCK)).toBe(true);
    await execa('blkdiscard', [device.path]);
    await execa('blkdiscard', ['-z', device.path]);
    // The magic number of extended requests, and that of others.
    expect(server.log()).toContain('magic = 0x21e41c71');
    expect(server.log()).not.toContain('magic = 0x25609513');
    expect(server.log()).not.toContain('payload_compliance');
    const load = startLoad(device.path);
    await diesAndReturns(server, device);
    await endLoad(load);
    expect(device.stats().total.errors).toBe(0);
    expect(await carries(device, MKFS, FSCK)).toBe(true);
  });

  test('has the limits that the server has', async (context) => {
    needServer(context, 'nbdkit');
    const filter = '--filter=blocksize-policy';
    const limits = ['blocksize-minimum=4k', 'blocksize-preferred=16k', 'blocksize-maximum=64k'];
    const server = await nbdkit(filter, 'memory', '64M', ...limits, 'blocksize-error-policy=error');
    await using device = await createDevice({ target: targets.nbd(server.uri) });
    expect(await setting(device, 'logical_block_size')).toBe('4096');
    expect(await setting(device, 'physical_block_size')).toBe('16384');
    expect(await setting(device, 'chunk_sectors')).toBe('128');
    expect(await setting(device, 'write_cache')).toBe('write back');
    // The server refuses what is larger.
    await fioVerify(device);
  });

  test('refuses writes where the server does', async (context) => {
    needServer(context, 'nbdkit');
    const server = await nbdkit('-r', 'memory', '1M');
    const created = createDevice({ target: targets.nbd(server.uri) });
    await expect(created).rejects.toMatchObject({ code: 'ERR_UBLK_PERMISSION' });
    const target = targets.nbd(server.uri, { readOnly: true });
    await using device = await createDevice({ target });
    expect((await execa('blockdev', ['--getro', device.path])).stdout).toBe('1');
  });

  test('passes errors of the server on', async (context) => {
    needServer(context, 'nbdkit');
    const error = join(temporaryFolder(), 'error');
    const words = ['error=EIO', 'error-rate=100%', `error-file=${error}`];
    const server = await nbdkit('--filter=error', 'memory', '1M', ...words);
    await using device = await createDevice({ target: targets.nbd(server.uri) });
    expect((await readBlock(device)).exitCode).toBe(0);
    await execa('touch', [error]);
    expect((await readBlock(device)).stderr).toContain('Input/output error');
    await execa('rm', [error]);
    expect((await readBlock(device)).exitCode).toBe(0);
  });

  test('goes on when a server that stood still goes on, and fails requests before', async (context) => {
    needServer(context, 'nbdkit');
    const server = await nbdkit('memory', '1M');
    const limits = { connectTimeoutMs: 1000, reconnectTimeoutMs: 1000, answerTimeoutMs: 1000 };
    await using device = await createDevice({ target: targets.nbd(server.uri, limits) });
    expect((await readBlock(device)).exitCode).toBe(0);
    server.halt();
    expect((await readBlock(device)).stderr).toContain('Input/output error');
    server.go();
    await expect.poll(async () => (await readBlock(device)).exitCode, { timeout: 30_000 }).toBe(0);
  });

  test('waits for a server that is slow', async (context) => {
    needServer(context, 'nbdkit');
    const server = await nbdkit('--filter=delay', 'memory', '1M', 'rdelay=3');
    const target = targets.nbd(server.uri, { answerTimeoutMs: 60_000, reconnectTimeoutMs: 0 });
    await using device = await createDevice({ target });
    expect((await readBlock(device)).exitCode).toBe(0);
  });

  test.each(['nbdkit', 'qemu'] as const)(
    'goes on when %s is killed and started again under a load',
    async (kind) => {
      const image = sparseImage(64 * MIB);
      const server =
        kind === 'qemu' ? await qemuNbd(image, '--cache=writeback') : await nbdkit('file', image);
      await using device = await createDevice({ target: targets.nbd(server.uri) });
      const load = startLoad(device.path);
      for (let cycle = 0; cycle < 3; cycle += 1) {
        await diesAndReturns(server, device);
      }
      await endLoad(load);
      expect(device.stats().total.errors).toBe(0);
      expect(await carries(device, MKFS, FSCK)).toBe(true);
    },
  );

  test('lies below stripes, a concatenation and a delay', async (context) => {
    needServer(context, 'nbdkit');
    const [one, two] = [await nbdkit('memory', '32M'), await nbdkit('memory', '32M')];
    const file = targets.file(sparseImage(32 * MIB));
    const layers = [
      targets.striped([targets.nbd(one.uri), file, targets.nbd(two.uri)]),
      targets.linear([targets.nbd(one.uri), targets.nbd(two.uri)]),
      targets.delay(targets.nbd(one.uri), { readUs: 500 }),
    ];
    for (const target of layers) {
      await using device = await createDevice({ target });
      await fioVerify(device, ['--offset=8M']);
      expect(device.stats().total.errors).toBe(0);
    }
  });

  test('is the base of an overlay', async (context) => {
    needServer(context, 'nbdkit');
    const { path, bytes } = randomImage(16 * MIB);
    const server = await nbdkit('-r', 'file', path);
    const layer = join(temporaryFolder(), 'vm.layer');
    const base = targets.nbd(server.uri, { readOnly: true });
    await using device = await createDevice({
      target: targets.overlay(base, layer, { create: true }),
    });
    expectBytes(await readBytes(device), bytes);
    await writeBytes(device, 65_536, bytes.subarray(0, 65_536));
    const changed = Buffer.from(bytes);
    bytes.copy(changed, 65_536, 0, 65_536);
    expectBytes(await readBytes(device), changed);
  });

  test.for(['steps', 'map'])('is the backend of a handler with %s', async (how, context) => {
    needServer(context, 'nbdkit');
    const { path } = randomImage(16 * MIB);
    const server = await nbdkit('file', path);
    const [size, backends] = [8 * MIB, { remote: targets.nbd(server.uri) }];
    const steps: Handler<'remote'> = {
      size,
      backends,
      read: async (request) => await request.read('remote', request.offset + size),
      write: async (request) => await request.write('remote', request.offset + size),
    };
    const map: Handler<'remote'> = {
      size,
      backends,
      map: ({ offset }) => ({ backend: 'remote', offset: offset + size }),
    };
    await using device = await createDevice({ target: how === 'map' ? map : steps });
    await fioVerify(device, ['--size=8M']);
    expectBytes(await readBytes(device), (await readFile(path)).subarray(size));
    expect(device.stats().total.errors).toBe(0);
  });

  test('is recovered by the next server, from the record', async (context) => {
    needServer(context, 'nbdkit');
    await need(context, 'USER_RECOVERY_REISSUE', 'QUIESCE');
    const kit = await nbdkit('file', sparseImage(64 * MIB));
    let { server } = await startServer('add', 'nbd', kit.uri, '--recovery', 'reissue');
    const load = startLoad('/dev/ublkb0');
    await pause(1000);
    for (let cycle = 0; cycle < CYCLES; cycle += 1) {
      server.kill('SIGKILL');
      await server;
      ({ server } = await startServer('recover', '0'));
      await pause(1000);
    }
    await endLoad(load);
    const other = await nbdkit('memory', '64M');
    server.kill('SIGKILL');
    await server;
    const wrong = await ublk('recover', '0', 'nbd', other.uri);
    expect(wrong.stderr).toContain('its layout was');
    ({ server } = await startServer('recover', '0'));
    await deleteDevice(0);
    await server;
  });

  test('is served by the command', async (context) => {
    needServer(context, 'nbdkit');
    const kit = await nbdkit('memory', '4M');
    const { server, path } = await startServer('add', 'nbd', kit.uri);
    expect(path).toContain('/dev/ublkb0');
    await execa('dd', ['if=/dev/zero', 'of=/dev/ublkb0', 'bs=1M', 'count=4', 'oflag=direct']);
    server.kill('SIGTERM');
    expect((await server).exitCode).toBe(0);
  });

  test('names what is wrong with a server, and leaves nothing', async (context) => {
    needServer(context, 'qemu');
    const image = sparseImage(MIB);
    const { uri } = await qemuNbd(image);
    for (const [wrong, words] of [
      [uri.replace('/disk?', '/other?'), 'the server has no such export'],
      [`${uri}-not`, 'No such file or directory'],
      ['nbd://127.0.0.1:1/disk', 'Connection refused'],
      ['nbds://127.0.0.1/disk', 'tlsCertificates is missing'],
    ] as const) {
      const { exitCode, stderr } = await ublk('add', 'nbd', wrong);
      expect({ exitCode, stderr }).toMatchObject({ stderr: expect.stringContaining(words) });
      expect(exitCode).not.toBe(0);
    }
  });
});
