import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { execa } from 'execa';
import { afterEach, expect, test, vi } from 'vitest';

import {
  connectService,
  createOverlay,
  deleteDevice,
  exportOverlay,
  type ServiceClient,
  targets,
} from '../../src/index.ts';
import { randomImage, sparseImage, temporaryFolder } from './image.ts';
import { CYCLES, endLoad, pause, startLoad } from './load.ts';
import { deviceIds, expectNoDevices, need, withUblk } from './machine.ts';
import { startServer, ublk } from './server.ts';

const MIB = 1 << 20;
const SOCKET = '/run/ublk-service.sock';

/** Several processes start, one after another. */
const slow = { timeout: 900_000 };
const soon = { timeout: 60_000, interval: 200 };

/** A configuration of devices by name. */
function configFile(devices: string): string {
  const path = join(temporaryFolder(), 'ublk.toml');
  writeFileSync(path, devices);
  return path;
}

const NULL = 'target = { kind = "null", size = "1MiB" }\n';

function parse(text: string): Record<string, unknown> {
  return JSON.parse(text) as Record<string, unknown>;
}

/** What a process holds: open files and threads. */
function holdingsOf(pid: number): { files: number; threads: number } {
  const count = (what: string): number => readdirSync(`/proc/${pid}/${what}`).length;
  return { files: count('fd'), threads: count('task') };
}

withUblk('a service with a control socket', () => {
  afterEach(expectNoDevices);

  test('is looked after by the commands, while clients use a device', slow, async (context) => {
    await need(context, 'USER_RECOVERY_REISSUE', 'UPDATE_SIZE');
    const image = sparseImage(64 * MIB);
    const data = `[devices.data]\ntarget = { kind = "file", path = "${image}" }\n`;
    const path = configFile(`${data}[devices.scratch]\n${NULL}`);
    const { server } = await startServer('serve', path);
    const client = await connectService();
    const ids = new Map((await client.devices()).map(({ name, id }) => [name, id]));
    const id = String(ids.get('data'));

    // Clients of the device and of the service do not wait for each other.
    const load = startLoad(`/dev/ublkb${id}`);
    await vi.waitFor(async () => {
      expect((await client.device('data')).total.writes).toBeGreaterThan(100);
    }, soon);
    const all = await Promise.all(Array.from({ length: 100 }, () => client.devices()));
    expect(all.every((devices) => devices.length === 2)).toBe(true);

    truncateSync(image, 128 * MIB);
    const grown = await ublk('resize', id, '128MiB', '--json');
    expect(parse(grown.stdout)).toEqual({ id: Number(id), size: 128 * MIB });
    const beyond = await ublk('resize', id, '256MiB', '--json');
    expect(parse(beyond.stderr)).toMatchObject({ error: { code: 'ERR_UBLK_BAD_BACKEND' } });
    const info = parse((await ublk('info', id, '--json')).stdout);
    expect(info).toMatchObject({ size: 128 * MIB, service: { name: 'data', socket: SOCKET } });
    expect((info['counters'] as { writes: number }).writes).toBeGreaterThan(100);
    const busy = await ublk('stop', id, '--json');
    expect(parse(busy.stderr)).toMatchObject({ error: { code: 'ERR_UBLK_BUSY' } });
    await endLoad(load);

    const stopped = await ublk('service', 'stop', 'scratch', '--json');
    expect(parse(stopped.stdout)).toMatchObject({ id: ids.get('scratch'), stopped: true });
    const reloaded = await ublk('service', 'reload', '--json');
    expect(JSON.parse(reloaded.stdout)).toMatchObject([{ action: 'keep' }, { action: 'create' }]);
    writeFileSync(path, `${data}dept = 3\n`);
    const wrong = await ublk('service', 'reload');
    expect(wrong.exitCode).toBe(2);
    expect(wrong.stderr).toContain("ublk.toml:3: devices.data.dept: device 'data' has no 'dept'");
    const { stdout } = await ublk('service', 'status', '--json');
    expect(parse(stdout)).toMatchObject({ pid: server.pid, config: path, ready: true });
    expect((parse(stdout)['devices'] as object[]).length).toBe(2);

    const events: string[] = [];
    const listening = (async () => {
      for await (const { event } of client.events()) events.push(event);
    })();
    await vi.waitFor(() => expect(events).toEqual(['hello']), soon);
    await client.stop('scratch');
    await ublk('stop', id);
    expect((await server).exitCode).toBe(0);
    await listening;
    expect(events).toEqual(['hello', 'end', 'end']);
    expect(existsSync(SOCKET)).toBe(false);
  });

  test('forks a disk in use', slow, async (context) => {
    await need(context, 'USER_RECOVERY_REISSUE');
    const { path: image } = randomImage(16 * MIB);
    const base = targets.file(image, { readOnly: true });
    const live = join(dirname(image), 'live.layer');
    const child = join(dirname(image), 'child.layer');
    await createOverlay(base, live);
    const below = `{ kind = "file", path = "${image}", readOnly = true }`;
    const target = `{ kind = "overlay", path = "${live}", base = ${below} }`;
    const path = configFile(`[devices.data]\ntarget = ${target}\n`);
    const { server } = await startServer('serve', path);
    const client = await connectService();
    const written = async () => (await client.device('data')).total.writes;
    const load = startLoad('/dev/ublkb0');
    await vi.waitFor(async () => expect(await written()).toBeGreaterThan(100), soon);
    const fork = ['service', 'fork', 'data', child, '--path', `${live}.frozen`, '--json'];
    const { stdout } = await ublk(...fork);
    expect(parse(stdout)).toMatchObject({ path: `${live}.frozen` });
    const again = await ublk(...fork);
    expect(parse(again.stderr)).toMatchObject({ error: { code: 'ERR_UBLK_BAD_BACKEND' } });
    const before = await written();
    await vi.waitFor(async () => expect(await written()).toBeGreaterThan(before + 100), soon);
    await endLoad(load);
    await client.stop('data');
    expect((await server).exitCode).toBe(0);

    const contents = async (layer: string): Promise<Buffer> => {
      const out = `${layer}.raw`;
      await exportOverlay(base, layer, out);
      return readFileSync(out);
    };
    const frozen = await contents(`${live}.frozen`);
    expect((await contents(child)).equals(frozen)).toBe(true);
    expect((await contents(live)).equals(frozen)).toBe(false);
    expect(readFileSync(image).equals(frozen)).toBe(false);
  });

  test('takes over the socket of a killed service, and no living one', slow, async (context) => {
    await need(context, 'USER_RECOVERY_REISSUE');
    const path = configFile(`[devices.data]\nrecovery = "reissue"\n${NULL}`);
    const one = await startServer('serve', path);
    const other = configFile(`[devices.other]\n${NULL}`);
    const refused = await ublk('serve', other, '--control', SOCKET, '--json');
    expect(parse(refused.stderr)).toMatchObject({ error: { code: 'ERR_UBLK_BUSY' } });
    expect(deviceIds()).toEqual([0]);
    // Without a wish for this very socket, the second service goes without one.
    const two = await startServer('serve', other);
    expect((await ublk('stop', '1')).exitCode).toBe(0);
    expect((await two.server).stderr).toContain('no control socket: another service listens');

    one.server.kill('SIGKILL');
    await one.server;
    expect(existsSync(SOCKET)).toBe(true);
    const gone = await ublk('service', 'status', '--json');
    expect(parse(gone.stderr)).toMatchObject({ error: { code: 'ERR_UBLK_NO_SERVICE' } });
    const next = await startServer('serve', path);
    const client = await connectService();
    expect(await client.info()).toMatchObject({
      pid: next.server.pid,
      results: [{ name: 'data', action: 'recover' }],
    });
    next.server.kill('SIGTERM');
    await next.server;
    expect(existsSync(SOCKET)).toBe(false);
    await deleteDevice(0);
  });

  test('names a device on which nothing completes, and goes on', slow, async () => {
    const target =
      'target = { kind = "null", size = "1MiB" }, kind = "delay", writeUs = 15_000_000';
    const path = configFile(`[devices.slow]\ntarget = { ${target} }\n`);
    const { server } = await startServer('serve', path, '--stall-after', '2');
    const client = await connectService();
    const said: object[] = [];
    const listening = (async () => {
      for await (const event of client.events()) said.push(event);
    })();
    await vi.waitFor(() => expect(said).toHaveLength(1), soon);
    const dd = ['if=/dev/zero', 'of=/dev/ublkb0', 'bs=4096', 'count=1', 'oflag=direct'];
    expect((await execa('dd', dd, { reject: false })).exitCode).toBe(0);
    await vi.waitFor(() => expect(said).toHaveLength(3), soon);
    expect(said.slice(1)).toMatchObject([
      { event: 'stall', name: 'slow', inFlight: 1, serves: 'null:1MiB, late' },
      { event: 'resume', name: 'slow' },
    ]);
    await client.stop('slow');
    await listening;
    const { exitCode, stderr } = await server;
    expect(exitCode).toBe(0);
    expect(stderr).toMatch(
      /slow \(\/dev\/ublkb0\): no request has completed for \d+ s, 1 wait for null/,
    );
  });

  test('creates and closes again and again, and holds nothing more', slow, async () => {
    const rounds = 10 * CYCLES;
    const path = configFile(`[devices.keeper]\n${NULL}[devices.a]\n${NULL}`);
    const { server } = await startServer('serve', path);
    const client = await connectService();
    const cycle = async (client: ServiceClient): Promise<void> => {
      await client.stop('a');
      const results = await client.reload();
      expect(results.filter(({ error }) => error !== undefined)).toEqual([]);
    };
    for (let round = 0; round < 3; round += 1) await cycle(client);
    await pause(500);
    const before = holdingsOf(server.pid!);
    for (let round = 0; round < rounds; round += 1) await cycle(client);
    await vi.waitFor(() => {
      const { files, threads } = holdingsOf(server.pid!);
      expect(files).toBeLessThanOrEqual(before.files);
      expect(threads).toBeLessThanOrEqual(before.threads);
    }, soon);
    expect(deviceIds()).toHaveLength(2);
    for (const id of deviceIds()) await ublk('stop', String(id));
    expect((await server).exitCode).toBe(0);
    const left = existsSync('/run/ublk') ? readdirSync('/run/ublk') : [];
    expect([...left, ...readdirSync('/run/ublk-servers')]).toEqual([]);
  });
});
