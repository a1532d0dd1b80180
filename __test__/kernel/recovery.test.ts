import { once } from 'node:events';
import { existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { execa } from 'execa';
import { afterEach, describe, expect, onTestFinished, test, vi, type TestContext } from 'vitest';

import {
  createDevice,
  deleteDevice,
  getDeviceInfo,
  quiesceDevice,
  recoverDevice,
  resizeDevice,
  targets,
  type ExchangeMode,
} from '../../src/index.ts';
import { mountPoint } from './filesystem.ts';
import { PACKAGE } from './handler-program.ts';
import { sparseImage } from './image.ts';
import { createOrSkip, expectNoDevices, isTestMachine, need, withUblk } from './machine.ts';
import { CYCLES, endLoad, pause, startLoad } from './load.ts';
import { makeNullDisk, removeNullDisk } from './null-disk.ts';
import { startServer } from './server.ts';
import { sleeps } from './tasks.ts';

const MIB = 1024 * 1024;
const EXCHANGES: readonly ExchangeMode[] = ['per-io', 'batch'];

/** Where the kernel waits for requests in STOP_DEV, also of a device with recovery. */
const STOPPING = ['blk_mq_freeze_queue_wait', 'msleep'] as const;

function needFor(context: TestContext, exchange: ExchangeMode): Promise<void> {
  return need(context, ...(exchange === 'batch' ? ['BATCH_IO'] : []), 'USER_RECOVERY_REISSUE');
}

withUblk('a device that outlives its server', () => {
  afterEach(expectNoDevices);

  test.for(EXCHANGES)(
    'loses nothing of a file system when its server is killed under load (%s)',
    { timeout: 120_000 * CYCLES + 180_000 },
    async (exchange, context) => {
      await needFor(context, exchange);
      const path = sparseImage(96 * MIB);
      const folder = mountPoint();
      const shape = ['--queues', '2', '--exchange', exchange, '--recovery', 'reissue'];
      let { server } = await startServer('add', 'file', path, ...shape);
      await execa('mkfs.ext4', ['-q', '/dev/ublkb0']);
      await execa('mount', ['/dev/ublkb0', folder]);
      const load = startLoad(join(folder, 'data'), '--fsync=32');
      for (let cycle = 0; cycle < CYCLES; cycle += 1) {
        await pause(1000 + Math.random() * 1000);
        server.kill('SIGKILL');
        await server;
        await vi.waitFor(async () => expect((await getDeviceInfo(0)).state).toBe('quiesced'), {
          timeout: 60_000,
        });
        ({ server } = await startServer('recover', '0', 'file', path));
        expect(await getDeviceInfo(0)).toMatchObject({ state: 'live', serverPid: server.pid });
      }
      await endLoad(load);
      await execa('umount', [folder]);
      // SIGTERM leaves a device with recovery to the next server.
      server.kill('SIGTERM');
      expect((await server).exitCode).toBe(0);
      await deleteDevice(0);
      await execa('e2fsck', ['-f', '-n', path]);
    },
  );

  test.for(EXCHANGES)(
    'is handed from server to server while it is written to (%s)',
    async (exchange, context) => {
      await needFor(context, exchange);
      // Without it a server leaves by itself, which was seen to hang on 6.12.
      await need(context, 'QUIESCE');
      const target = targets.file(sparseImage(64 * MIB));
      const options = { target, queues: 2, exchange, recovery: 'reissue' } as const;
      let device = await createOrSkip(context, options);
      const load = startLoad(device.path);
      for (let upgrade = 0; upgrade < 4; upgrade += 1) {
        await pause(1000);
        await device.quiesce();
        expect(await device.closed).toBe('quiesced');
        device = await recoverDevice(device.id, { target });
        expect(device.buffers.exchange).toBe(exchange);
      }
      await pause(500);
      await endLoad(load);
      await device.close();
    },
  );

  test.for([
    ['reads the partition table', '{ size: 1 << 20, read: never }', undefined],
    ['asks for zones', '{ ...zones, read() {}, write() {}, reportZones: never }', 'ZONED'],
  ] as const)(
    'ends with a server that is killed while START_DEV %s',
    async ([, target, feature], context) => {
      if (feature) await need(context, feature);
      const program = `
        const { createDevice } = await import(${JSON.stringify(PACKAGE)});
        const never = () => new Promise(() => {});
        const verbs = ['Append', 'Open', 'Close', 'Finish', 'Reset', 'ResetAll'];
        const answers = Object.fromEntries(verbs.map((verb) => ['zone' + verb, never]));
        const zones = { size: 8 << 20, zones: { size: 4 << 20 }, ...answers };
        await createDevice({ target: ${target}, timeoutMs: 600_000 });
      `;
      const server = execa('node', ['--input-type=module', '--eval', program], { reject: false });
      onTestFinished(() => void server.kill('SIGKILL'));
      await vi.waitFor(async () => expect((await getDeviceInfo(0)).state).toBe('live'), 60_000);
      await pause(500);
      expect(server.exitCode).toBeNull();
      server.kill('SIGKILL');
      await server;
      await deleteDevice(0, { force: true });
    },
  );

  test('is left by a server that is killed while the kernel waits for its requests', async (context) => {
    // Before, START_DEV itself would wait, and with it whoever wants the device (trap 65).
    await need(context, 'NO_AUTO_PART_SCAN');
    const program = `
      const { createDevice } = await import(${JSON.stringify(PACKAGE)});
      const target = { size: 1 << 20, read: () => new Promise(() => {}) };
      await createDevice({ target, recovery: 'reissue', queue: { readAheadKb: 64 } });
    `;
    const server = execa('node', ['--input-type=module', '--eval', program], { reject: false });
    onTestFinished(() => void server.kill('SIGKILL'));
    // A setting of the queue waits for the kernel's own read of the partition table.
    await vi.waitFor(() => expect(sleeps('blk_mq_freeze_queue_wait')).toBe(true), 60_000);
    server.kill('SIGKILL');
    await server;
    await vi.waitFor(async () => expect((await getDeviceInfo(0)).state).toBe('quiesced'), 60_000);
    await deleteDevice(0, { force: true });
    await vi.waitFor(() => expect(sleeps('blk_mq_freeze_queue_wait')).toBe(false), 60_000);
  });

  test.for([undefined, 'reissue'] as const)(
    'ends with a server that is killed while it stops the device (recovery: %s)',
    async (recovery, context) => {
      if (recovery) await need(context, 'USER_RECOVERY_REISSUE');
      const program = `
        import { setTimeout } from 'node:timers/promises';
        import { createDevice } from ${JSON.stringify(PACKAGE)};
        let answers = true;
        const read = ({ data }) => (answers ? void data.fill(0) : new Promise(() => {}));
        const target = { size: 1 << 20, read };
        const options = { target, timeoutMs: 600_000, recovery: ${JSON.stringify(recovery)} };
        const device = await createDevice(options);
        await setTimeout(1000);
        answers = false;
        console.log('serves');
        await once(process.stdin, 'data');
        await device.close();
      `;
      const args = [
        '--input-type=module',
        '--eval',
        `import { once } from 'node:events';${program}`,
      ];
      const server = execa('node', args, { reject: false });
      onTestFinished(() => void server.kill('SIGKILL'));
      await once(server.stdout, 'data');
      const read = ['if=/dev/ublkb0', 'of=/dev/null', 'bs=4k', 'count=1', 'iflag=direct'];
      const client = execa('dd', read, { reject: false });
      const inFlight = () => readFileSync('/sys/block/ublkb0/inflight', 'utf8').trim();
      await vi.waitFor(() => expect(inFlight()).toMatch(/^[1-9]/), 60_000);
      server.stdin.write('\n');
      await vi.waitFor(() => expect(sleeps(...STOPPING)).toBe(true), 60_000);
      server.kill('SIGKILL');
      await server;
      expect((await client).exitCode).not.toBe(0);
      await vi.waitFor(() => expect(sleeps(...STOPPING)).toBe(false), 60_000);
      await deleteDevice(0, { force: true });
    },
  );

  test('is taken from its server by another process, and given to a third', async (context) => {
    await need(context, 'QUIESCE');
    const path = sparseImage(64 * MIB);
    const { server } = await startServer('add', 'file', path, '--recovery', 'queue');
    const load = startLoad('/dev/ublkb0');
    await pause(1500);
    const quiesced = await startServer('quiesce', '0');
    expect(quiesced.path).toContain('quiesced device 0');
    const { exitCode, stderr } = await server;
    expect(exitCode).toBe(0);
    expect(stderr).toContain('/dev/ublkb0 quiesced: ');
    expect(await getDeviceInfo(0)).toMatchObject({ state: 'quiesced', recovery: 'queue' });
    await using device = await recoverDevice(0, { target: targets.file(path) });
    expect(device.features).toContain('QUIESCE');
    await pause(500);
    await endLoad(load);
  });

  test('fails requests until somebody serves it again, if it was asked to', async (context) => {
    await need(context, 'USER_RECOVERY_FAIL_IO', 'QUIESCE');
    const target = targets.file(sparseImage(MIB));
    const device = await createDevice({ target, recovery: 'fail' });
    await device.quiesce();
    expect((await getDeviceInfo(device.id)).state).toBe('fail-io');
    const read = ['if=/dev/ublkb0', 'of=/dev/null', 'bs=4k', 'count=1', 'iflag=direct'];
    expect((await execa('dd', read, { reject: false })).exitCode).not.toBe(0);
    await using again = await recoverDevice(device.id, { target });
    expect(again.features).toContain('USER_RECOVERY_FAIL_IO');
    await execa('dd', read);
  });

  test('is recovered with what it was only', async (context) => {
    await need(context, 'QUIESCE');
    const path = sparseImage(8 * MIB);
    const target = targets.file(path);
    const device = await createDevice({ target, recovery: 'reissue' });
    await device.quiesce();
    const other = targets.file(sparseImage(MIB));
    await expect(recoverDevice(0, { target: other })).rejects.toMatchObject({
      code: 'ERR_UBLK_BAD_BACKEND',
      message: expect.stringContaining('size was 8388608 and is 1048576') as string,
    });
    await using again = await recoverDevice(0, { target });
    expect(again.id).toBe(device.id);
    await expect(recoverDevice(0, { target, timeoutMs: 200 })).rejects.toMatchObject({
      code: 'ERR_UBLK_BUSY',
    });
  });

  test('is recovered with the layout that it had only', async (context) => {
    await need(context, 'QUIESCE');
    const files = [0, 1, 2, 3].map(() => targets.file(sparseImage(8 * MIB)));
    const target = targets.striped(files, { chunk: 4096 });
    const device = await createDevice({ target, recovery: 'reissue' });
    await device.quiesce();
    for (const other of [
      targets.striped(files.slice(2), { chunk: 8192 }),
      targets.striped(files.toReversed(), { chunk: 4096 }),
    ]) {
      await expect(recoverDevice(0, { target: other })).rejects.toMatchObject({
        code: 'ERR_UBLK_BAD_BACKEND',
      });
    }
    expect(existsSync('/run/ublk/0.layout')).toBe(true);
    const again = await recoverDevice(0, { target });
    await again.close();
    expect(existsSync('/run/ublk/0.layout')).toBe(false);
  });

  test.runIf(isTestMachine)('is recovered while its server is still dying', async (context) => {
    await need(context, 'USER_RECOVERY_REISSUE');
    // Each request takes a second, and a process ends when its last one has.
    const slow = { irqmode: '2', completion_nsec: '1000000000' };
    const disk = await makeNullDisk('ublkslow', slow);
    onTestFinished(() => removeNullDisk('ublkslow'));
    const { server } = await startServer('add', 'file', disk, '--recovery', 'reissue');
    const read = execa('dd', [
      'if=/dev/ublkb0',
      'of=/dev/null',
      'bs=4k',
      'count=3',
      'iflag=direct',
    ]);
    await pause(500);
    server.kill('SIGKILL');
    await using device = await recoverDevice(0, { target: targets.file(disk) });
    expect((await read).exitCode).toBe(0);
    expect(device.id).toBe(0);
  });

  test('is not taken from a server with batches by another process', async (context) => {
    await need(context, 'BATCH_IO', 'QUIESCE');
    const target = targets.null({ size: '1MiB' });
    await using device = await createDevice({ target, exchange: 'batch', recovery: 'reissue' });
    await expect(quiesceDevice(device.id)).rejects.toMatchObject({
      code: 'ERR_UBLK_UNSUPPORTED',
      message: expect.stringContaining('batch') as string,
    });
    const write = ['if=/dev/zero', `of=${device.path}`, 'bs=4k', 'count=4', 'oflag=direct'];
    expect((await execa('dd', write)).exitCode).toBe(0);
  });

  test('is left without a failure where the kernel counts nothing', async (context) => {
    await need(context, 'QUIESCE');
    const target = targets.file(sparseImage(64 * MIB));
    const options = { target, queue: { iostats: false }, recovery: 'queue' } as const;
    let device = await createDevice(options);
    const load = startLoad(device.path);
    for (let upgrade = 0; upgrade < 3; upgrade += 1) {
      await pause(500);
      await device.quiesce();
      device = await recoverDevice(device.id, { target });
    }
    await pause(500);
    await endLoad(load);
    await expect(device.close()).resolves.toBeUndefined();
  });

  test.runIf(isTestMachine)('is not announced where a file lies in its place', async () => {
    writeFileSync('/dev/ublkb7', '');
    onTestFinished(() => rmSync('/dev/ublkb7', { force: true }));
    const target = targets.null({ size: '1MiB' });
    await expect(createDevice({ target, id: 7 })).rejects.toMatchObject({
      message: expect.stringContaining('a plain file') as string,
    });
    rmSync('/dev/ublkb7');
    await using device = await createDevice({ target, id: 7 });
    expect(device.id).toBe(7);
  });

  test('can be deleted while nobody serves it', async (context) => {
    await need(context, 'USER_RECOVERY');
    const { server } = await startServer('add', 'null', '--size', '1MiB', '--recovery', 'queue');
    server.kill('SIGKILL');
    await server;
    await deleteDevice(0);
    await expect(getDeviceInfo(0)).rejects.toMatchObject({ code: 'ERR_UBLK_NO_DEVICE' });
  });
});

withUblk('the size of a device', () => {
  afterEach(expectNoDevices);

  describe('changes', () => {
    test('while it is mounted, if what lies behind it has grown', async (context) => {
      await need(context, 'UPDATE_SIZE');
      const path = sparseImage(32 * MIB);
      const folder = mountPoint();
      await using device = await createDevice({ target: targets.file(path) });
      await execa('mkfs.ext4', ['-q', device.path]);
      await execa('mount', [device.path, folder]);
      await expect(device.resize('64MiB')).rejects.toMatchObject({ code: 'ERR_UBLK_BAD_BACKEND' });
      truncateSync(path, 64 * MIB);
      await device.resize('64MiB');
      expect(device.size).toBe(64 * MIB);
      const { stdout } = await execa('blockdev', ['--getsize64', device.path]);
      expect(Number(stdout)).toBe(64 * MIB);
      await execa('resize2fs', [device.path]);
      await execa('dd', ['if=/dev/urandom', `of=${folder}/data`, 'bs=1M', 'count=40']);
      await execa('umount', [folder]);
      await device.close();
      await execa('e2fsck', ['-f', '-n', path]);
    });

    test('from another process', async (context) => {
      await need(context, 'UPDATE_SIZE');
      const { server } = await startServer('add', 'null', '--size', '1MiB');
      await expect(resizeDevice(0, '2MiB')).rejects.toMatchObject({
        code: 'ERR_UBLK_INVALID_ARGUMENT',
        message: expect.stringContaining(`process ${server.pid}`) as string,
      });
      expect(await resizeDevice(0, '2MiB', { force: true })).toMatchObject({ size: 2 * MIB });
      expect(await resizeDevice(0, '1MiB')).toMatchObject({ size: MIB });
      await expect(resizeDevice(0, 1000)).rejects.toMatchObject({
        code: 'ERR_UBLK_INVALID_ARGUMENT',
      });
      server.kill('SIGTERM');
      expect((await server).exitCode).toBe(0);
    });
  });
});
