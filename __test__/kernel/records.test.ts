import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { execa } from 'execa';
import { afterEach, expect, onTestFinished, test, vi, type TestContext } from 'vitest';

import {
  createDevice,
  deleteDevice,
  getDeviceInfo,
  listOrphans,
  prune,
  recoverDevice,
  targets,
} from '../../src/index.ts';
import { randomImage, sparseImage } from './image.ts';
import { CYCLES, endLoad, pause, startLoad } from './load.ts';
import { expectNoDevices, need, withUblk } from './machine.ts';
import { CLI, startServer, ublk } from './server.ts';

const MIB = 1 << 20;

/** The records in /run/ublk, those of this package and of its native core. */
function recordFiles(): string[] {
  return existsSync('/run/ublk') ? readdirSync('/run/ublk').sort() : [];
}

async function expectNothing(): Promise<void> {
  await expectNoDevices();
  expect(recordFiles()).toEqual([]);
}

async function needRecovery(context: TestContext): Promise<void> {
  await need(context, 'USER_RECOVERY_REISSUE', 'QUIESCE');
}

/** Waits until the kernel has noticed that the server is dead. */
async function untilLeft(id: number): Promise<void> {
  await vi.waitFor(async () => expect((await getDeviceInfo(id)).state).toBe('quiesced'), {
    timeout: 60_000,
  });
}

async function killed(server: Awaited<ReturnType<typeof startServer>>['server']): Promise<void> {
  server.kill('SIGKILL');
  await server;
}

/** The paths of the files that a process has open. */
function openFiles(pid: number): string[] {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).flatMap((file) => {
    try {
      return readlinkSync(join(folder, file));
    } catch {
      // The process has closed the file since.
      return [];
    }
  });
}

function recordOf(id: number): { readonly pid: number; readonly options: object } {
  return JSON.parse(readFileSync(`/run/ublk/${id}.json`, 'utf8')) as ReturnType<typeof recordOf>;
}

/**
 * Starts recoveries of device 0, and kills each when `reached` becomes true, until one of them has been
 * killed while the device was in `state`.
 */
async function killRecoveryIn(
  reached: (pid: number) => boolean | Promise<boolean>,
  state: string,
): Promise<void> {
  for (let found = ''; found !== state;) {
    const recovery = ublk('recover', '0');
    while (!(await reached(recovery.pid!))) {
      expect(recovery.exitCode, 'the recovery has ended by itself').toBeNull();
      await new Promise(setImmediate);
    }
    // A process that stands still changes no state before it is killed.
    recovery.kill('SIGSTOP');
    found = (await getDeviceInfo(0)).state;
    recovery.kill('SIGKILL');
    await recovery;
    await untilLeft(0);
  }
}

/** A module with which a server kills itself when its record is there: before the device starts. */
const KILLED_BEFORE_START = `data:text/javascript,${encodeURIComponent(`
  import fs from 'node:fs';
  import { syncBuiltinESMExports } from 'node:module';
  const { closeSync } = fs;
  fs.closeSync = (file) => {
    closeSync(file);
    if (fs.existsSync('/run/ublk/0.json')) process.kill(process.pid, 'SIGKILL');
  };
  syncBuiltinESMExports();
`)}`;

withUblk('the record of a device', () => {
  afterEach(expectNothing);

  test(
    'recovers it under load, as often as its server is killed',
    { timeout: 120_000 * CYCLES + 180_000 },
    async (context) => {
      await needRecovery(context);
      const shape = ['--recovery', 'reissue', '--queues', '2', '--name', 'data'];
      const files = [sparseImage(16 * MIB), sparseImage(16 * MIB)];
      let { server } = await startServer('add', 'striped', ...files, '--chunk', '8KiB', ...shape);
      const load = startLoad('/dev/ublkb0');
      for (let cycle = 0; cycle < CYCLES; cycle += 1) {
        await pause(1000 + Math.random() * 1000);
        await killed(server);
        ({ server } = await startServer('recover', '0'));
        expect(await getDeviceInfo(0)).toMatchObject({ state: 'live', serverPid: server.pid });
      }
      await pause(1000);
      await endLoad(load);
      expect((await ublk('info', '0')).stdout).toMatch(/name +data/);
      expect((await ublk('stop', '0')).exitCode).toBe(0);
      expect((await server).exitCode).toBe(0);
    },
  );

  test(
    'recovers it although each recovering process is killed on its way',
    { timeout: 240_000 * CYCLES + 180_000 },
    async (context) => {
      await needRecovery(context);
      const image = sparseImage(64 * MIB);
      const { server } = await startServer('add', 'file', image, '--recovery', 'reissue');
      const load = startLoad('/dev/ublkb0');
      await pause(1500);
      await killed(server);
      await untilLeft(0);
      const moments: [reached: (pid: number) => boolean | Promise<boolean>, state: string][] = [
        [(pid) => openFiles(pid).includes(image), 'quiesced'],
        [(pid) => openFiles(pid).includes('/dev/ublkc0'), 'quiesced'],
        [async (pid) => (await getDeviceInfo(0)).serverPid === pid, 'live'],
        [(pid) => recordOf(0).pid === pid, 'live'],
      ];
      for (let cycle = 0; cycle < CYCLES; cycle += 1) {
        for (const [reached, state] of moments) await killRecoveryIn(reached, state);
      }
      const last = await startServer('recover', '0');
      await pause(1000);
      await endLoad(load);
      expect((await ublk('stop', '0')).exitCode).toBe(0);
      await last.server;
    },
  );

  test('is there before the device starts', async (context) => {
    await needRecovery(context);
    const program = [CLI, 'add', 'file', sparseImage(MIB), '--recovery', 'reissue'];
    const server = execa('node', ['--import', KILLED_BEFORE_START, ...program], { reject: false });
    expect((await server).signal).toBe('SIGKILL');
    expect(await getDeviceInfo(0)).toMatchObject({ state: 'dead', recovery: 'reissue' });
    expect(recordFiles()).toEqual(['0.json', '0.layout']);
    // A device that never started has no clients, and cannot be recovered.
    expect((await ublk('list')).stdout).toContain('/dev/ublkb0 has no server: ublk delete 0');
    expect((await ublk('recover', '--all')).stdout).toBe('no device waits for a server');
    expect(await prune()).toMatchObject({ devices: [0], kept: [] });
  });

  test('serves the next server of a device that had just started', async (context) => {
    await needRecovery(context);
    const server = ublk('add', 'file', sparseImage(MIB), '--recovery', 'reissue');
    const isLive = async (): Promise<boolean> => {
      const info = await getDeviceInfo(0).catch(() => undefined);
      return info?.state === 'live';
    };
    while (!(await isLive())) expect(server.exitCode).toBeNull();
    server.kill('SIGKILL');
    await server;
    await untilLeft(0);
    const next = await recoverDevice(0);
    await next.close();
  });

  test('is there for root alone as long as the device is, whatever ends that', async (context) => {
    await needRecovery(context);
    const target = targets.null({ size: '1MiB' });
    const device = await createDevice({ target, recovery: 'reissue', name: 'none', id: 3 });
    expect(recordFiles()).toEqual(['3.json', '3.layout']);
    const text = readFileSync('/run/ublk/3.json', 'utf8');
    expect(JSON.parse(text)).toMatchObject({ version: 1, id: 3, name: 'none', pid: process.pid });
    await device.quiesce();
    expect(recordFiles()).toEqual(['3.json', '3.layout']);
    const again = await recoverDevice(3);
    await again.close();
    expect(recordFiles()).toEqual([]);
    const other = await createDevice({ target, recovery: 'queue' });
    await other.quiesce();
    await deleteDevice(other.id);
    expect(recordFiles()).toEqual([]);
    await using _plain = await createDevice({ target });
    expect(recordFiles()).toEqual([]);
  });

  test('gives the next server the options of the last, as far as none are given', async (context) => {
    await needRecovery(context);
    const { path } = randomImage(MIB);
    const target = targets.file(path, { size: MIB / 2 });
    const device = await createDevice({ target, recovery: 'reissue', affinity: [0], queues: 1 });
    await device.resize(MIB);
    await device.quiesce();
    const again = await recoverDevice(0);
    expect(again.size).toBe(MIB);
    await again.quiesce();
    expect(recordOf(0).options).toEqual({ recovery: 'reissue', affinity: [0], queues: 1 });
    const third = await recoverDevice(0, { pin: true });
    expect(recordOf(0).options).toEqual({ recovery: 'reissue', pin: true, queues: 1 });
    await third.close();
  });

  test('says what must be given where a handler answered', async (context) => {
    await needRecovery(context);
    const target = { size: MIB, read: ({ data }: { data: Buffer }) => void data.fill(0) };
    const device = await createDevice({ target, recovery: 'reissue' });
    await device.quiesce();
    await expect(recoverDevice(0)).rejects.toMatchObject({
      code: 'ERR_UBLK_INVALID_ARGUMENT',
      message: expect.stringContaining(
        'a handler answered for, lacks its JavaScript functions',
      ) as string,
    });
    expect((await getDeviceInfo(0)).state).toBe('quiesced');
    const again = await recoverDevice(0, { target });
    await again.close();
  });

  test('that is bad is refused by name and stays, and a given target still wins', async (context) => {
    await needRecovery(context);
    const path = sparseImage(MIB);
    const device = await createDevice({ target: targets.file(path), recovery: 'reissue' });
    await device.quiesce();
    const file = '/run/ublk/0.json';
    const whole = readFileSync(file, 'utf8');
    for (const bad of [whole.slice(0, 99), '{}\n', whole.replace('"version":1', '"version":2')]) {
      writeFileSync(file, bad);
      await expect(recoverDevice(0)).rejects.toMatchObject({
        code: 'ERR_UBLK_BAD_RECORD',
        message: expect.stringContaining(file) as string,
      });
      expect(readFileSync(file, 'utf8')).toBe(bad);
    }
    const said = await ublk('recover', '0');
    expect(said.exitCode).toBe(1);
    expect(said.stderr).toContain(file);
    expect((await ublk('list')).stdout).toContain(file);
    const other = targets.file(sparseImage(2 * MIB), { size: MIB / 2 });
    await expect(recoverDevice(0, { target: other })).rejects.toMatchObject({
      code: 'ERR_UBLK_BAD_BACKEND',
    });
    const again = await recoverDevice(0, { target: targets.file(path) });
    // The bad record is in the place of the new one.
    expect(readFileSync(file, 'utf8')).toContain('"version":2');
    await again.quiesce();
    writeFileSync(file, whole);
    await (await recoverDevice(0)).close();
  });

  test('of an earlier device is not the record of this one', async (context) => {
    await needRecovery(context);
    const target = targets.file(sparseImage(MIB));
    const device = await createDevice({ target, recovery: 'reissue' });
    const stale = readFileSync('/run/ublk/0.json', 'utf8');
    await device.close();
    const next = await createDevice({ target: targets.null({ size: MIB }), recovery: 'reissue' });
    await next.quiesce();
    writeFileSync('/run/ublk/0.json', stale);
    await expect(recoverDevice(0)).rejects.toMatchObject({
      code: 'ERR_UBLK_BAD_RECORD',
      message: expect.stringContaining('earlier device') as string,
    });
    await deleteDevice(0);
    expect((await listOrphans()).records).toMatchObject([{ path: '/run/ublk/0.json' }]);
    expect(await prune()).toMatchObject({ records: ['/run/ublk/0.json'] });
  });

  test('is left by no device of many', { timeout: 20_000 * CYCLES + 180_000 }, async (context) => {
    await needRecovery(context);
    const target = targets.null({ size: MIB });
    for (let cycle = 0; cycle < CYCLES; cycle += 1) {
      const device = await createDevice({ target, recovery: 'reissue', partScan: false });
      expect(recordFiles()).toEqual(['0.json', '0.layout']);
      await device.close();
      expect(recordFiles()).toEqual([]);
    }
  });
});

withUblk('what dead servers have left', () => {
  afterEach(expectNoDevices);

  test('is listed, and mended by recover --all and prune', async (context) => {
    await needRecovery(context);
    const one = await startServer('add', 'file', sparseImage(MIB), '--recovery', 'reissue');
    const two = await startServer('add', 'null', '--size', '1MiB', '--recovery', 'queue');
    const dead = await startServer('add', 'null', '--size', '1MiB', '--name', 'lost');
    for (const { server } of [one, two, dead]) await killed(server);
    await untilLeft(0);
    await untilLeft(1);
    const record = readFileSync('/run/ublk/0.json', 'utf8');
    writeFileSync('/run/ublk/9.json', record.replace('"id":0', '"id":9'));
    onTestFinished(() => expect(existsSync('/run/ublk/9.json')).toBe(false));

    const listed = (await ublk('list')).stdout;
    expect(listed).toContain('/dev/ublkb0 has no server: ublk recover 0');
    expect(listed).toContain('/dev/ublkb2 has no server: ublk delete 2');
    expect(listed).toContain('/run/ublk/9.json is the record of a device that is gone: ublk prune');
    const asData = JSON.parse((await ublk('list', '--json')).stdout) as object[];
    expect(asData.map((each) => (each as { state: string }).state)).toEqual([
      'quiesced',
      'quiesced',
      'dead',
      'gone',
    ]);

    const wouldDo = { devices: [2], records: ['/run/ublk/9.json'] };
    expect(await prune({ dryRun: true })).toMatchObject(wouldDo);
    const pruned = JSON.parse((await ublk('prune', '--json')).stdout) as object;
    expect(pruned).toMatchObject({
      ...wouldDo,
      kept: [{ path: '/dev/ublkb0' }, { path: '/dev/ublkb1' }],
    });

    const all = await startServer('recover', '--all');
    expect(await getDeviceInfo(0)).toMatchObject({ state: 'live', serverPid: all.server.pid });
    expect(await getDeviceInfo(1)).toMatchObject({ state: 'live', serverPid: all.server.pid });
    expect((await ublk('recover', '--all')).stdout).toBe('no device waits for a server');
    all.server.kill('SIGTERM');
    expect((await all.server).exitCode).toBe(0);
    expect((await getDeviceInfo(1)).state).toBe('quiesced');
    await deleteDevice(0);
    await deleteDevice(1);
    expect((await ublk('prune')).stdout).toBe('nothing is left behind');
  });
});
