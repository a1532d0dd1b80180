import { existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, expect, test, vi, type TestContext } from 'vitest';

import {
  deleteDevice,
  getDeviceInfo,
  serve,
  Service,
  stopDevice,
  targets,
  type ServiceConfig,
} from '../../src/index.ts';
import { sparseImage, temporaryFolder } from './image.ts';
import { endLoad, pause, startLoad } from './load.ts';
import { deviceIds, expectNoDevices, need, withUblk } from './machine.ts';
import { startServer, ublk } from './server.ts';

const MIB = 1 << 20;

/** A configuration in a file, which can be written anew. */
function configFile(config: object): { path: string; write(next: object): void } {
  const path = join(temporaryFolder(), 'ublk.json');
  const write = (next: object): void => writeFileSync(path, JSON.stringify(next, undefined, 2));
  write(config);
  return { path, write };
}

type Server = Awaited<ReturnType<typeof startServer>>['server'];

/** What a server has said on stderr up to now. */
function heard(server: Server): () => string {
  let text = '';
  server.stderr.on('data', (part: Buffer) => (text += part.toString()));
  return () => text;
}

async function stopAll(...ids: number[]): Promise<void> {
  for (const id of ids) await stopDevice(id);
}

/** Several processes start, one after another. */
const slow = { timeout: 600_000 };
const soon = { timeout: 60_000, interval: 200 };

async function needAll(context: TestContext): Promise<void> {
  await need(context, 'USER_RECOVERY_REISSUE', 'QUIESCE', 'UPDATE_SIZE');
}

withUblk('a service', () => {
  afterEach(expectNoDevices);

  test('serves a device as soon as its file is there', slow, async () => {
    const image = join(temporaryFolder(), 'late.img');
    const there = { target: { kind: 'null', size: '1MiB' } };
    const late = { target: { kind: 'file', path: image } };
    const { path } = configFile({ devices: { there, late } });
    const { server } = await startServer('serve', path);
    expect(deviceIds()).toHaveLength(1);
    await pause(3000);
    writeFileSync(image, Buffer.alloc(MIB));
    await vi.waitFor(async () => expect((await ublk('list')).stdout).toContain('late'), soon);
    expect(deviceIds()).toHaveLength(2);
    await stopAll(...deviceIds());
    const { exitCode, stderr } = await server;
    expect(exitCode).toBe(1);
    expect(stderr.match(/tried again in 1 s, then less often/g)).toHaveLength(1);
  });

  test(
    'creates what is missing, keeps what is right, and mends what is dead',
    slow,
    async (context) => {
      await needAll(context);
      const data = { target: targets.file(sparseImage(64 * MIB)), recovery: 'reissue' } as const;
      const scratch = { target: targets.null({ size: '1MiB' }), id: 7 };
      const config = { devices: { data, scratch } };
      const { path } = configFile(config);
      const planned = await ublk('serve', path, '--dry-run', '--json');
      expect(JSON.parse(planned.stdout)).toMatchObject([
        { name: 'data', action: 'create' },
        { name: 'scratch', action: 'create' },
      ]);
      expect(deviceIds()).toEqual([]);

      const one = await startServer('serve', path);
      expect(await getDeviceInfo(0)).toMatchObject({ state: 'live', serverPid: one.server.pid });
      const plan = () => new Service().plan(config);
      expect(await plan()).toMatchObject([{ action: 'keep', remains: [] }, { action: 'keep' }]);
      await using other = await serve(config);
      expect(other.devices.size).toBe(0);

      const load = startLoad('/dev/ublkb0');
      await pause(1500);
      one.server.kill('SIGKILL');
      await one.server;
      await vi.waitFor(async () => {
        expect(await plan()).toMatchObject([
          { action: 'recover', remains: [] },
          { action: 'replace' },
        ]);
      }, soon);
      const two = await startServer('serve', path);
      await pause(1000);
      await endLoad(load);
      expect(deviceIds()).toEqual([0, 7]);
      expect(await plan()).toMatchObject([{ action: 'keep', remains: [] }, { action: 'keep' }]);
      await stopAll(0, 7);
      expect((await two.server).exitCode).toBe(0);
    },
  );

  test('reads its file again at SIGHUP, and changes what can be changed', slow, async (context) => {
    await needAll(context);
    const image = sparseImage(64 * MIB);
    const data = { target: { kind: 'file', path: image }, recovery: 'reissue' };
    const scratch = { target: { kind: 'null', size: '1MiB' }, id: 7 };
    const { path, write } = configFile({ devices: { data, scratch } });
    const { server } = await startServer('serve', path);
    const said = heard(server);
    truncateSync(image, 128 * MIB);
    write({ devices: { data: { ...data, depth: 32 }, more: scratch } });
    server.kill('SIGHUP');
    await vi.waitFor(() => expect(said()).toContain('has been read again'), soon);
    expect(await getDeviceInfo(0)).toMatchObject({ size: 128 * MIB });
    expect(readFileSync('/run/ublk-servers/ublkb7.json', 'utf8')).toContain('"name":"more"');
    expect(said()).toMatch(/data: resize: .*depth was the default and is 32/);

    write({ devices: { data: { ...data, dept: 32 } } });
    server.kill('SIGHUP');
    const wrong = "ublk.json:9: devices.data.dept: device 'data' has no 'dept'";
    await vi.waitFor(() => expect(said()).toContain(wrong), soon);
    expect(deviceIds()).toEqual([0, 7]);
    await stopAll(0, 7);
    expect((await server).exitCode).toBe(0);
  });

  test('serves the others when one cannot be served, and says which', slow, async () => {
    const path = join(temporaryFolder(), 'ublk.toml');
    const bad = '[devices.bad]\ntarget = { kind = "file", path = "nowhere.img" }\n';
    writeFileSync(path, `[devices.good.target]\nkind = "null"\nsize = "1MiB"\n${bad}`);
    const { server, path: line } = await startServer('serve', path, '--json');
    const { devices, steps } = JSON.parse(line) as { devices: object[]; steps: object[] };
    expect(devices).toMatchObject([{ name: 'good', path: '/dev/ublkb0' }]);
    expect(steps).toMatchObject([
      { name: 'good' },
      { name: 'bad', error: { code: 'ERR_UBLK_NO_BACKEND' } },
    ]);
    await stopAll(0);
    expect((await server).exitCode).toBe(1);
  });

  test(
    'leaves a free device with recovery, and serves the others until they are free',
    slow,
    async (context) => {
      await needAll(context);
      const target = { kind: 'null', size: '1MiB' };
      const { path } = configFile({
        devices: { data: { target, recovery: 'queue' }, scratch: { target, id: 7 } },
      });
      const { server } = await startServer('serve', path);
      const said = heard(server);
      const file = await open('/dev/ublkb7', 'r');
      server.kill('SIGTERM');
      await vi.waitFor(() => expect(said()).toContain('ublk device 7 is in use'), soon);
      await vi.waitFor(async () => expect((await getDeviceInfo(0)).state).toBe('quiesced'), soon);
      await file.read(Buffer.alloc(4096), 0, 4096, 0);
      await file.close();
      expect((await server).exitCode).toBe(0);
      expect(deviceIds()).toEqual([0]);
      const next = await startServer('serve', path);
      expect(next.path).toBe('data /dev/ublkb0');
      next.server.kill('SIGTERM');
      await next.server;
      await deleteDevice(0);
    },
  );

  test.each([
    ['a second signal', []],
    ['its limit', ['--stop-after', '2']],
  ])('waits for users no longer than %s', slow, async (_, limit) => {
    const { path } = configFile({ devices: { data: { target: { kind: 'null', size: '1MiB' } } } });
    const { server } = await startServer('serve', path, ...limit);
    const said = heard(server);
    const file = await open('/dev/ublkb0', 'r');
    server.kill('SIGTERM');
    await vi.waitFor(() => expect(said()).toContain('in use'), soon);
    if (limit.length === 0) server.kill('SIGTERM');
    await vi.waitFor(() => expect(existsSync('/sys/block/ublkb0')).toBe(false), soon);
    await file.close();
    expect((await server).exitCode).toBe(0);
  });

  test('in a program reloads, and tells the end of each device', async (context) => {
    await needAll(context);
    const disk = { target: targets.null({ size: MIB }) };
    const config = (size: number): ServiceConfig => {
      return { devices: { a: disk, b: { target: targets.null({ size }), recovery: 'reissue' } } };
    };
    await using service = await serve(config(MIB));
    const ends: string[] = [];
    service.on('end', (name) => void ends.push(name));
    expect([...service.devices.keys()].sort()).toEqual(['a', 'b']);
    expect(await service.plan(config(2 * MIB))).toMatchObject([
      { action: 'keep' },
      { action: 'resize' },
    ]);
    await service.reload(config(2 * MIB));
    expect(service.devices.get('b')?.size).toBe(2 * MIB);
    expect(
      JSON.parse(readFileSync(`/run/ublk/${service.devices.get('b')?.id}.json`, 'utf8')),
    ).toMatchObject({ name: 'b' });
    const [stopped] = await service.reload({ devices: { b: config(2 * MIB).devices['b']! } });
    expect(stopped).toMatchObject({ name: 'a', action: 'stop' });
    expect(stopped?.error).toBeUndefined();
    expect(ends).toEqual(['a']);
    await service.close();
    expect(ends).toEqual(['a', 'b']);
  });
});
