import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, request, type IncomingMessage } from 'node:http';
import { createServer as createPipe, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';

import { execa } from 'execa';
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';

import { connectService, type ServiceClient } from '../../../src/control/client.ts';
import { findInService, serviceOf } from '../../../src/control/locate.ts';
import { openControl, type ControlOptions } from '../../../src/control/open.ts';
import { UblkError } from '../../../src/errors.ts';
import { native, type NativeEnd } from '../../../src/native.ts';
import { Service } from '../../../src/service/service.ts';
import { fakeDevice } from '../fake-device.ts';

vi.mock(import('../../../src/native.ts'), async (original) => ({
  ...(await original()),
  native: vi.fn<typeof native>(),
}));

type Fake = ReturnType<typeof fakeDevice>;

/** The devices that the addon has made. */
let made: { device: Fake; end: (end: NativeEnd) => void }[] = [];

const cancelMerge = vi.fn<() => void>();
const stopDevice = vi.fn<(id: number, force: boolean) => Promise<unknown>>();

beforeEach(() => {
  made = [];
  stopDevice.mockReset();
  stopDevice.mockImplementation(async () => {
    made.at(-1)?.end({ reason: 'stopped' });
    return { value: 'openers' };
  });
  vi.mocked(native).mockReturnValue({
    stopDevice,
    listDevices: async () => ({ value: [] }),
    overlayTask: () => ({ progress: () => [3, 3], cancel: cancelMerge }),
    createDevice: async (_: unknown, end: (end: NativeEnd) => void) => {
      const device = fakeDevice(end);
      made.push({ device, end });
      return { value: device };
    },
  } as never);
});

const CONFIG = { devices: { data: { target: { kind: 'null', size: '1GiB' } } } } as const;

function socketPath(): string {
  const folder = mkdtempSync(join(tmpdir(), 'ublk-control-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return join(folder, 'ublk.sock');
}

async function start(options: ControlOptions = {}) {
  const service = new Service();
  await service.reload(CONFIG);
  const path = options.path ?? socketPath();
  const control = await openControl(service, { path, ...options });
  onTestFinished(() => control.close());
  return { service, control, path, client: await connectService(path) };
}

async function errorOf(promise: Promise<unknown>): Promise<UblkError> {
  const error: unknown = await promise.catch((thrown: unknown) => thrown);
  if (UblkError.is(error)) return error;
  throw new Error('there was no error', { cause: error });
}

/** A request of somebody else's client. */
async function ask(path: string, method: string, place: string, body?: string) {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    request({ socketPath: path, method, path: place, agent: false }, resolve)
      .once('error', reject)
      .end(body);
  });
  return { status: response.statusCode, body: JSON.parse(await text(response)) as unknown };
}

describe('a control socket', () => {
  test('tells of the service and its devices', async () => {
    const { client } = await start();
    expect(await client.info()).toMatchObject({
      pid: process.pid,
      ready: true,
      devices: ['data'],
      results: [{ name: 'data', action: 'create' }],
    });
    const device = await client.device('data');
    expect(device).toMatchObject({ name: 'data', id: 7, total: { reads: 3, readBytes: 8704 } });
    expect(await client.devices()).toEqual([device]);
  });

  test('snapshots and forks a device in its server', async () => {
    const { client, path } = await start();
    expect(await client.snapshot('data', { path: '/disks/a' })).toMatchObject({ path: '/disks/a' });
    expect(await client.fork('data', ['/disks/b'])).toMatchObject({ generation: 7 });
    expect(made[0]?.device.snapshot.mock.calls).toEqual([
      [[], '/disks/a'],
      [['/disks/b'], undefined],
    ]);
    expect((await errorOf(client.fork('data', []))).message).toMatch(/at least one/);
    expect((await errorOf(client.snapshot('date'))).code).toBe('ERR_UBLK_NO_DEVICE');
    const wrong = [
      ['{"children":"b"}', /array/],
      ['{"children":["b"]}', /not absolute/],
    ] as const;
    for (const [body, message] of wrong) {
      const answer = await ask(path, 'POST', '/v1/devices/data/snapshot', body);
      expect(answer.status).toBe(400);
      expect(JSON.stringify(answer.body)).toMatch(message);
    }
    expect(made[0]?.device.snapshot).toHaveBeenCalledTimes(2);
  });

  test('merges the layers of a device in its server, until the client goes away', async () => {
    const { client } = await start();
    const options = { prune: true, bytesPerSecond: '1MiB' };
    expect(await client.flatten('data', options)).toEqual({
      kept: [],
      removed: ['/disks/vm.layer.6'],
    });
    const { flatten } = made[0]!.device;
    expect(flatten.mock.calls[0]!.slice(0, 2)).toEqual([true, 2 ** 20]);
    const cancelled = new Promise<void>((resolve) => cancelMerge.mockImplementation(resolve));
    const controller = new AbortController();
    flatten.mockImplementationOnce(async () => {
      controller.abort();
      await cancelled;
      return { value: { kept: [], removed: [] } };
    });
    await expect(client.flatten('data', { signal: controller.signal })).rejects.toThrow(/abort/);
    await cancelled;
    const wrong = { bytesPerSecond: 'much' };
    expect((await errorOf(client.flatten('data', wrong))).code).toBe('ERR_UBLK_INVALID_ARGUMENT');
    expect((await errorOf(client.flatten('date'))).code).toBe('ERR_UBLK_NO_DEVICE');
  });

  test('tells the progress of a merge before its end, good or bad', async () => {
    const { client } = await start();
    const onProgress = vi.fn();
    const merged = { kept: [], removed: ['/disks/vm.layer.6'] };
    expect(await client.flatten('data', { onProgress })).toEqual(merged);
    expect(onProgress.mock.calls).toEqual([[{ done: 3, total: 3 }]]);
    made[0]!.device.flatten.mockImplementationOnce(async () => {
      // A report comes every 100 ms.
      await vi.waitFor(() => expect(onProgress).toHaveBeenCalledTimes(2));
      return { failure: { code: 'ERR_UBLK_RESOURCES', message: 'the file system is full' } };
    });
    const error = await errorOf(client.flatten('data', { onProgress }));
    expect(error).toMatchObject({ code: 'ERR_UBLK_RESOURCES', message: 'the file system is full' });
  });

  test('ends a merge whose client fails to hear of the progress', async () => {
    const { client } = await start();
    const cancelled = new Promise<void>((resolve) => cancelMerge.mockImplementation(resolve));
    made[0]!.device.flatten.mockImplementationOnce(async () => {
      await cancelled;
      return { failure: { code: 'ERR_UBLK_CLOSED', message: 'the merge was cancelled' } };
    });
    const failure = new Error('no room on the terminal');
    const onProgress = () => {
      throw failure;
    };
    await expect(client.flatten('data', { onProgress })).rejects.toBe(failure);
    await cancelled;
  });

  test('resizes and quiesces a device in its server, and stops another one', async () => {
    const { client, service } = await start();
    expect(await client.resize('data', '2GiB')).toMatchObject({ size: 2 ** 31 });
    expect(made[0]?.device.resize).toHaveBeenCalledWith(2 ** 31);
    expect(await client.throttle('data', { iops: 9 })).toEqual({ id: 7 });
    const all = expect.objectContaining({ all: { iops: 9 } }) as object;
    expect(made[0]?.device.throttle).toHaveBeenCalledWith(all);
    expect((await errorOf(client.throttle('data', { iops: 0 }))).message).toMatch(/iops is 0/);
    expect(await client.quiesce('data')).toEqual({ id: 7 });
    expect(service.devices.size).toBe(0);
    await service.reload(CONFIG);
    expect(await client.stop('data', { force: true })).toEqual({ id: 7, checked: 'openers' });
    expect(stopDevice).toHaveBeenCalledWith(7, true);
    expect(await client.devices()).toEqual([]);
  });

  test('passes errors on with code, message, hint and errno', async () => {
    const { client } = await start();
    const failure = { code: 'ERR_UBLK_BUSY', message: 'in use', hint: 'umount', errno: 16 };
    stopDevice.mockResolvedValue({ failure });
    expect(await errorOf(client.stop('data'))).toMatchObject(failure);
    expect(await errorOf(client.device('date'))).toMatchObject({
      code: 'ERR_UBLK_NO_DEVICE',
      hint: 'the service has data',
    });
    const wrong = { size: 'lots' } as const;
    expect((await errorOf(client.resize('data', wrong.size as never))).message).toMatch(/lots/);
  });

  test('answers others while a request waits', async () => {
    const { client } = await start();
    let free!: (value: unknown) => void;
    stopDevice.mockReturnValue(new Promise((resolve) => (free = resolve)));
    const waiting = [client.stop('data'), client.stop('data')];
    await vi.waitFor(() => expect(stopDevice).toHaveBeenCalledTimes(2));
    const all = await Promise.all(Array.from({ length: 50 }, () => client.devices()));
    expect(all.every(([device]) => device?.name === 'data')).toBe(true);
    made[0]?.end({ reason: 'stopped' });
    free({ value: 'nothing' });
    const done = { id: 7, checked: 'nothing' };
    expect(await Promise.all(waiting)).toEqual([done, done]);
  });

  test('reloads, shows the plan, and refuses a wrong configuration by its key', async () => {
    let config: object = CONFIG;
    const { client, service } = await start({ reload: () => config as never });
    config = { devices: { ...CONFIG.devices, more: CONFIG.devices.data } };
    expect(await client.plan()).toMatchObject([{ action: 'keep' }, { name: 'more' }]);
    expect(service.devices.size).toBe(1);
    expect(await client.reload()).toMatchObject([{ action: 'keep' }, { action: 'create' }]);
    expect(service.devices.size).toBe(2);
    config = { devices: { data: { ...CONFIG.devices.data, depth: 0 } } };
    expect((await errorOf(client.reload())).message).toMatch(/^devices\.data\.depth: depth is 0/);
    const { client: other } = await start();
    expect(await errorOf(other.reload())).toMatchObject({ code: 'ERR_UBLK_UNSUPPORTED' });
  });

  test.each([
    ['GET', '/', undefined, 400, /has no GET \//],
    ['PUT', '/v1/devices', undefined, 400, /has no PUT/],
    ['POST', '/v1/devices/data/stop', '{"forse":true}', 400, /has no 'forse'/],
    ['POST', '/v1/devices/data/stop', '{"force":1}', 400, /force is 1/],
    ['POST', '/v1/devices/data/stop', '[]', 400, /must be an object/],
    ['POST', '/v1/devices/data/stop', '{', 400, /no JSON/],
    ['POST', '/v1/devices/data/resize', '{}', 400, /size/],
    ['POST', '/v1/devices/%zz/stop', '{}', 400, /no name/],
    ['POST', '/v1/devices/date/quiesce', '', 404, /no device 'date'/],
    ['POST', '/v1/reload', `{"a":"${'x'.repeat(70_000)}"}`, 400, /too long/],
  ])('refuses %s %s %s', async (method, place, body, status, says) => {
    const { path } = await start({ reload: () => CONFIG });
    const answer = await ask(path, method, place, body);
    expect(answer.status).toBe(status);
    const { error } = answer.body as { error: { message: string } };
    expect(error.message).toMatch(says);
    expect(stopDevice).not.toHaveBeenCalled();
  });

  test('is for its user alone, or for a group too', async () => {
    const { path } = await start();
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const gid = process.getgid?.() ?? 0;
    const { path: shared } = await start({ group: String(gid) });
    expect(statSync(shared)).toMatchObject({ gid });
    expect(statSync(shared).mode & 0o777).toBe(0o660);
    const error = await errorOf(start({ group: 'nobody-has-this-group' }));
    expect(error.message).toBe("there is no group 'nobody-has-this-group'");
  });

  test('takes the place of a dead service, not of a living one, nor of a file', async () => {
    const path = socketPath();
    // The process dies without an end of its socket.
    const die = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
    await execa('node', ['-e', die], { reject: false });
    expect(existsSync(path)).toBe(true);
    expect(await errorOf(connectService(path))).toMatchObject({ code: 'ERR_UBLK_NO_SERVICE' });
    const { control, client } = await start({ path });
    expect(await errorOf(start({ path }))).toMatchObject({ code: 'ERR_UBLK_BUSY' });
    expect((await client.info()).pid).toBe(process.pid);
    await control.close();
    expect(existsSync(path)).toBe(false);
    writeFileSync(path, 'mine');
    expect((await errorOf(start({ path }))).message).toMatch(/is there and no socket/);
    expect((await errorOf(start({ path: `/${'x'.repeat(200)}` }))).message).toMatch(/too long/);
    expect((await errorOf(start({ path: '/nowhere/a.sock' }))).message).toMatch(/cannot make/);
  });

  test('is found by the process of the server', async () => {
    const { path } = await start();
    expect((await serviceOf(process.pid))?.path).toBe(path);
    expect(await serviceOf(process.ppid)).toBeUndefined();
    expect(await serviceOf(undefined)).toBeUndefined();
    expect(await findInService(process.pid, 7)).toMatchObject({ client: { path }, name: 'data' });
    expect(await findInService(process.pid, 8)).toBeUndefined();
  });
});

describe('the events of a service', () => {
  async function take(client: ServiceClient, act: () => void | Promise<void>, last: string) {
    const seen: Record<string, unknown>[] = [];
    for await (const event of client.events()) {
      seen.push({ ...event });
      if (event.event === 'hello') await act();
      if (event.event === last) break;
    }
    return seen;
  }

  test('begin with the state, and name devices, warnings, errors and reloads', async () => {
    vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const { client, service } = await start();
    const act = async (): Promise<void> => {
      const warning = new UblkError('ERR_UBLK_HANDLER', 'it threw', { hint: 'catch' });
      service.devices.get('data')?.warn(warning);
      const failure = { code: 'ERR_UBLK_KERNEL', message: 'gone', hint: 'look' };
      made[0]?.end({ reason: 'failed', failure });
      await vi.waitFor(() => expect(service.devices.size).toBe(0));
      await service.reload(CONFIG);
    };
    expect(await take(client, act, 'reload')).toMatchObject([
      { event: 'hello', service: { devices: ['data'] } },
      { event: 'warning', name: 'data', warning: { message: 'it threw', hint: 'catch' } },
      { event: 'end', name: 'data', path: '/dev/ublkb7', error: { code: 'ERR_UBLK_KERNEL' } },
      { event: 'serve', name: 'data', id: 7 },
      { event: 'reload', results: [{ name: 'data', action: 'create' }] },
    ]);
    expect(process.emitWarning).toHaveBeenCalledTimes(1);
  });

  test('end with the service, and with the signal of the reader', async () => {
    const { client, control, service } = await start();
    const seen = await take(client, () => control.close(), 'never');
    expect(seen).toMatchObject([{ event: 'hello' }]);
    expect(service.listenerCount('end')).toBe(0);
    const { client: other, service: its } = await start();
    const stop = new AbortController();
    for await (const { event } of other.events({ signal: stop.signal })) {
      expect(event).toBe('hello');
      stop.abort();
    }
    await vi.waitFor(() => expect(its.listenerCount('end')).toBe(0));
  });

  test('are cut for a reader that does not read', async () => {
    const { path, service } = await start();
    const response = await new Promise<IncomingMessage>((resolve) => {
      request({ socketPath: path, path: '/v1/events', agent: false }, resolve).end();
    });
    const results = [{ name: 'x'.repeat(1 << 16) }] as never;
    const cut = async (): Promise<void> => {
      while (service.listenerCount('reload') > 0) {
        service.emit('reload', results);
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    await cut();
    expect(service.listenerCount('end')).toBe(0);
    response.destroy();
  });
});

test('a service that ends before its answer is an error', async () => {
  const path = socketPath();
  const server: Server = createPipe((socket) => socket.destroy()).listen(path);
  onTestFinished(() => void server.close());
  expect(await errorOf(connectService(path))).toMatchObject({ code: 'ERR_UBLK_NO_SERVICE' });
  const other = socketPath();
  const foreign = createServer((_, response) => response.end('hello')).listen(other);
  onTestFinished(() => void foreign.close());
  expect(await errorOf(connectService(other))).toMatchObject({ code: 'ERR_UBLK_NO_SERVICE' });
});
