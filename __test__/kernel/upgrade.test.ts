import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterEach, expect, test, vi, type TestContext } from 'vitest';

import { connectService, getDeviceInfo } from '../../src/index.ts';
import { standBetween } from './between.ts';
import { sparseImage, sparseImages, temporaryFolder } from './image.ts';
import { CYCLES, endLoad, pause, startLoad, type Load } from './load.ts';
import { deviceIds, expectNoDevices, need, withUblk } from './machine.ts';
import { startServer, ublk } from './server.ts';

const MIB = 1 << 20;
const SOCKET = '/run/ublk-service.sock';
/** The messages of a hand-over of two devices in their order. */
const MOMENTS = ['ready', 'yours', 'alive', 'yours 2', 'alive 2', 'bye', 'done'];

/** A disk in the memory of a worker thread. */
const MEMORY_DISK = `
  const disk = new Map();
  const chunk = 4096;
  export default {
    size: '32MiB',
    blockSize: chunk,
    read({ data, offset }) {
      for (let at = 0; at < data.length; at += chunk) {
        const held = disk.get(offset + at);
        if (held) data.set(held, at);
        else data.fill(0, at, at + chunk);
      }
    },
    write({ data, offset }) {
      for (let at = 0; at < data.length; at += chunk) {
        disk.set(offset + at, Buffer.from(data.subarray(at, at + chunk)));
      }
    },
    suspend: () => disk,
    resume: (last) => last.forEach((bytes, offset) => disk.set(offset, bytes)),
  };
`;

/** Several processes start, one after another. */
const slow = { timeout: 600_000 + 60_000 * CYCLES };

const soon = { timeout: 60_000, interval: 200 };

/** A configuration with a device of each kind of native target. */
function configOfAll(): { path: string; image: string; names: string[] } {
  const image = sparseImage(64 * MIB);
  const files = sparseImages([16 * MIB, 16 * MIB]).map((path) => ({ kind: 'file', path }));
  const base = { kind: 'file', path: sparseImage(64 * MIB) };
  const layer = join(temporaryFolder(), 'vm.layer');
  const targets = {
    plain: { kind: 'file', path: image },
    stripes: { kind: 'striped', chunk: '8KiB', targets: files },
    overlay: { kind: 'overlay', base, path: layer, create: true },
    nothing: { kind: 'null', size: '1MiB' },
  };
  const path = join(temporaryFolder(), 'ublk.json');
  writeConfig(path, targets);
  return { path, image, names: Object.keys(targets) };
}

function writeConfig(path: string, targets: object): void {
  const devices = Object.entries(targets).map(([name, target], id) => {
    return [name, { target: target as object, id, recovery: 'reissue' }];
  });
  writeFileSync(path, JSON.stringify({ devices: Object.fromEntries(devices) as object }));
}

async function needAll(context: TestContext): Promise<void> {
  await need(context, 'USER_RECOVERY_REISSUE', 'QUIESCE');
}

/** A load on each device that stores something. */
function startLoads(): Load[] {
  return [0, 1, 2].map((id) => startLoad(`/dev/ublkb${id}`, '--rate_iops=50'));
}

async function serversOf(ids: readonly number[]): Promise<(number | undefined)[]> {
  return await Promise.all(ids.map(async (id) => (await getDeviceInfo(id)).serverPid));
}

async function stopAll(): Promise<void> {
  for (const id of deviceIds()) expect((await ublk('stop', String(id))).exitCode).toBe(0);
}

withUblk('an upgrade of a service', () => {
  afterEach(expectNoDevices);

  test('takes all devices over while clients use them', slow, async (context) => {
    await needAll(context);
    const { path, names } = configOfAll();
    const ids = names.map((_, id) => id);
    const pidFile = join(temporaryFolder(), 'pid');
    let { server } = await startServer('serve', path, '--pid-file', pidFile);
    const loads = startLoads();
    await pause(1500);

    const looked = await ublk('upgrade', '--dry-run', '--json');
    expect(looked).toMatchObject({ exitCode: 0, stderr: '' });
    const steps = names.map((name, id) => ({ name, id, action: 'take-over', remains: [] }));
    expect(JSON.parse(looked.stdout)).toMatchObject(steps);
    expect(await serversOf(ids)).toEqual(ids.map(() => server.pid));

    for (let cycle = 0; cycle < CYCLES + 2; cycle += 1) {
      const next = await startServer('upgrade', '--json');
      const { exitCode, stderr } = await server;
      expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
      expect(stderr).toContain(`process ${next.server.pid} serves the devices from now on`);
      expect(stderr).not.toContain('waits for its next server');
      expect(JSON.parse(next.path)).toMatchObject({
        devices: names.map((name, id) => ({ name, id, pid: next.server.pid })),
        steps,
      });
      expect(await serversOf(ids)).toEqual(ids.map(() => next.server.pid));
      expect(readFileSync(pidFile, 'utf8')).toBe(`${next.server.pid}\n`);
      expect(await (await connectService()).info()).toMatchObject({ pid: next.server.pid });
      server = next.server;
      await pause(500 + Math.random() * 1000);
    }
    await Promise.all(loads.map(endLoad));
    await stopAll();
    expect((await server).exitCode).toBe(0);
  });

  test('takes over what handlers have in memory', slow, async (context) => {
    await needAll(context);
    const folder = temporaryFolder();
    const disk = join(folder, 'disk.mjs');
    writeFileSync(disk, MEMORY_DISK);
    const path = join(folder, 'ublk.json');
    writeConfig(path, { memory: { kind: 'module', url: disk } });
    let { server } = await startServer('serve', path);
    const load = startLoad('/dev/ublkb0', '--rate_iops=50');
    for (let cycle = 0; cycle < CYCLES + 1; cycle += 1) {
      await pause(2000);
      const next = await startServer('upgrade');
      expect((await server).exitCode).toBe(0);
      server = next.server;
    }
    await pause(2000);
    await endLoad(load);
    await stopAll();
    expect((await server).exitCode).toBe(0);
  });

  test(
    'that cannot take a device over changes nothing, and names the device',
    slow,
    async (context) => {
      await needAll(context);
      const { path, image, names } = configOfAll();
      const ids = names.map((_, id) => id);
      const { server } = await startServer('serve', path);
      const other = join(temporaryFolder(), 'other.json');
      const config = JSON.parse(readFileSync(path, 'utf8')) as {
        devices: Record<string, { target: Record<string, unknown> }>;
      };
      config.devices['stripes']!.target['chunk'] = '16KiB';
      writeFileSync(other, JSON.stringify(config));
      truncateSync(image, 32 * MIB);
      for (const more of [['--dry-run'], []]) {
        const said = await ublk('upgrade', other, ...more);
        expect(said.exitCode).toBe(1);
        expect(said.stderr).toContain('size was');
        expect(said.stderr).toContain('stripes');
      }
      truncateSync(image, 64 * MIB);
      const said = await ublk('upgrade', other);
      expect(said.stderr).toContain(
        "device 'stripes' cannot be taken over: the target is not what",
      );
      expect(said.stderr).toContain('chunks of 8192');
      expect(await serversOf(ids)).toEqual(ids.map(() => server.pid));
      expect(server.exitCode).toBeNull();
      await stopAll();
      expect((await server).exitCode).toBe(0);
    },
  );

  test(
    'leaves the disks to the other server when either server is killed at any message',
    { timeout: 600_000 + 900_000 * CYCLES },
    async (context) => {
      await needAll(context);
      const images = sparseImages([32 * MIB, 32 * MIB]);
      const path = join(temporaryFolder(), 'ublk.json');
      const [a, b] = images.map((image) => ({ kind: 'file', path: image }));
      writeConfig(path, { a, b });
      const socket = join(temporaryFolder(), 'ublk-between.sock');
      let { server } = await startServer('serve', path);
      const loads = [0, 1].map((id) => startLoad(`/dev/ublkb${id}`, '--rate_iops=50'));
      for (let cycle = 0; cycle < CYCLES; cycle += 1) {
        for (const moment of MOMENTS) {
          for (const victim of ['new', 'old'] as const) {
            await using between = await standBetween(SOCKET, socket);
            const next = ublk('upgrade', '--socket', socket);
            await between.reached(moment);
            const [dying, living] = victim === 'old' ? [server, next] : [next, server];
            dying.kill('SIGKILL');
            await dying;
            between.cut();
            await vi.waitFor(async () => {
              const where = `${moment}: the ${victim} server killed`;
              expect({ where, pids: await serversOf([0, 1]) }).toEqual({
                where,
                pids: [living.pid, living.pid],
              });
              expect(await (await connectService()).info()).toMatchObject({ pid: living.pid });
            }, soon);
            expect(living.exitCode).toBeNull();
            server = living as typeof server;
          }
        }
      }
      await Promise.all(loads.map(endLoad));
      await stopAll();
      expect((await server).exitCode).toBe(0);
    },
  );

  test('refuses a service with a device that no other server can serve', slow, async (context) => {
    await needAll(context);
    const path = join(temporaryFolder(), 'ublk.json');
    writeFileSync(path, '{"devices":{"scratch":{"target":{"kind":"null","size":"1MiB"}}}}');
    const { server } = await startServer('serve', path);
    const said = await ublk('upgrade');
    expect(said).toMatchObject({ exitCode: 1, stdout: '' });
    expect(said.stderr).toContain("device 'scratch' cannot be taken over");
    expect(await serversOf([0])).toEqual([server.pid]);
    await stopAll();
    await server;
    expect((await ublk('upgrade')).stderr).toContain('no service listens');
  });
});
