import { connect, createServer } from 'node:net';
import { text as streamText } from 'node:stream/consumers';

import { describe, expect, onTestFinished, test, vi } from 'vitest';

import { Scrapes } from '../../../src/cli/scrapes.ts';
import type { ServedDevice } from '../../../src/control/protocol.ts';
import { parseDiskStat } from '../../../src/disk-stat.ts';
import { UblkError } from '../../../src/errors.ts';
import type { DeviceInfo } from '../../../src/info.ts';
import { parseAddress } from '../../../src/metrics/address.ts';
import { machineSources, type Machine } from '../../../src/metrics/machine.ts';
import { serveScrapes } from '../../../src/metrics/scrapes.ts';
import { checkConfig } from '../../../src/service/config.ts';
import { Service } from '../../../src/service/service.ts';

async function open(text: () => string | Promise<string>): Promise<string> {
  const server = await serveScrapes('0', 'address', text);
  onTestFinished(() => server[Symbol.asyncDispose]());
  return server.url;
}

async function errorOf(promise: Promise<unknown>): Promise<UblkError> {
  const error: unknown = await promise.catch((thrown: unknown) => thrown);
  if (UblkError.is(error)) return error;
  throw new Error('there was no error', { cause: error });
}

describe('an address for scrapes', () => {
  test.each([
    ['9760', '127.0.0.1', 9760],
    ['localhost:1', 'localhost', 1],
    ['0.0.0.0:65535', '0.0.0.0', 65_535],
    ['[::1]:0', '::1', 0],
  ])('%s is %s and %d', (text, host, port) => {
    expect(parseAddress(text, 'metrics')).toEqual({ host, port });
  });

  test.each([[''], ['65536'], ['::1:80'], ['a b:80'], ['host'], ['host:'], [9760], [true], [null]])(
    '%j is none',
    (value) => {
      const config = { devices: { a: { target: { kind: 'null', size: '1MiB' } } }, metrics: value };
      expect(() => checkConfig(config)).toThrow(/^metrics: metrics is .* an address with a port/);
      expect(() => checkConfig(config)).toThrow(expect.objectContaining({ key: 'metrics' }));
    },
  );

  test('is for the configuration of ublk serve, not of a program', async () => {
    const config = { devices: { a: { target: { kind: 'null', size: '1MiB' } } }, metrics: '9760' };
    expect(checkConfig(config).length).toBe(1);
    const error = await errorOf(new Service().reload(config as never));
    expect(error).toMatchObject({ key: 'metrics', message: 'metrics is for ublk serve' });
  });
});

describe('a server for scrapes', () => {
  test('answers GET and HEAD of /metrics, on this machine alone', async () => {
    const url = await open(() => 'ublk_ü 1\n');
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/metrics$/);
    const answer = await fetch(`${url}?a=b`);
    expect(answer.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(await answer.text()).toBe('ublk_ü 1\n');
    const head = await fetch(url, { method: 'HEAD' });
    expect(head.headers.get('content-length')).toBe('10');
    expect((await fetch(url, { method: 'POST', body: 'x' })).status).toBe(405);
    const other = await fetch(new URL('/', url));
    expect([other.status, await other.text()]).toEqual([404, 'the metrics are at /metrics\n']);
  });

  test('tells what is wrong, and goes on', async () => {
    const text = vi.fn<() => string>(() => 'fine\n');
    const url = await open(text);
    text.mockImplementationOnce(() => {
      throw new UblkError('ERR_UBLK_NO_DRIVER', 'no driver', { hint: 'modprobe ublk_drv' });
    });
    const answer = await fetch(url);
    expect(answer.status).toBe(503);
    expect(await answer.text()).toBe('error: no driver\nhint: modprobe ublk_drv\n');
    expect(await (await fetch(url)).text()).toBe('fine\n');
  });

  test('collects once for scrapes at the same time', async () => {
    let done!: (text: string) => void;
    const text = vi.fn<() => Promise<string>>(() => new Promise((resolve) => (done = resolve)));
    const { host, hostname, port } = new URL(await open(text));
    const socket = connect(Number(port), hostname);
    // The server reads all three before it answers one.
    const request = `GET /metrics HTTP/1.1\r\nHost: ${host}\r\n`;
    socket.write(`${request}\r\n${request}\r\n${request}Connection: close\r\n\r\n`);
    await vi.waitFor(() => expect(text).toHaveBeenCalled());
    done('one\n');
    expect((await streamText(socket)).split('\r\n\r\none\n').length).toBe(4);
    expect(text).toHaveBeenCalledTimes(1);
  });

  test('refuses an address in use, and one of another machine', async () => {
    const other = createServer();
    await new Promise<void>((resolve) => void other.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void other.close());
    const { port } = other.address() as { port: number };
    const busy = await errorOf(serveScrapes(`${port}`, '--metrics', () => ''));
    expect(busy).toMatchObject({ code: 'ERR_UBLK_BUSY', key: '--metrics' });
    expect(busy.message).toMatch(/^cannot listen at \d+ for scrapes: .*EADDRINUSE/);
    const foreign = await errorOf(serveScrapes('192.0.2.1:9760', '--metrics', () => ''));
    expect(foreign).toMatchObject({ code: 'ERR_UBLK_INVALID_ARGUMENT' });
  });
});

describe('the scrapes of a service', () => {
  test('move with the configuration, and stay where the new address is refused', async () => {
    const stderr = vi.spyOn(process.stderr, 'write').mockImplementation(() => true);
    onTestFinished(() => stderr.mockRestore());
    const said = (): string => /http:\S+/.exec(String(stderr.mock.lastCall?.[0]))?.[0] ?? '';
    const scrapes = new Scrapes(new Service(), undefined);
    onTestFinished(() => scrapes[Symbol.asyncDispose]());
    await scrapes.listen(undefined);
    expect(stderr).not.toHaveBeenCalled();
    await scrapes.listen('127.0.0.1:0');
    const first = said();
    expect(await (await fetch(first)).text()).toContain('ublk_build_info{version=');
    await scrapes.listen('127.0.0.1:0');
    expect(stderr).toHaveBeenCalledTimes(1);
    await errorOf(scrapes.listen(new URL(first).host));
    expect((await fetch(first)).status).toBe(200);
    await scrapes.listen('localhost:0');
    expect((await fetch(said())).status).toBe(200);
    await expect(fetch(first)).rejects.toThrow('fetch failed');
    const last = said();
    await scrapes.listen(undefined);
    await expect(fetch(last)).rejects.toThrow('fetch failed');
  });

  test('are at the address of the command rather than that of the configuration', async () => {
    const stderr = vi.spyOn(process.stderr, 'write').mockImplementation(() => true);
    onTestFinished(() => stderr.mockRestore());
    await using scrapes = new Scrapes(new Service(), '0');
    await scrapes.listen('192.0.2.1:1');
    await scrapes.listen(undefined);
    expect(stderr).toHaveBeenCalledTimes(1);
  });
});

describe('the devices of a machine', () => {
  const DISK = parseDiskStat('1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17');

  function info(id: number, serverPid?: number): DeviceInfo {
    const shape = { queues: 1, depth: 128, maxIoBytes: 1 << 20, ownerUid: 0, ownerGid: 0 };
    const known = { id, path: `/dev/ublkb${id}`, state: 'live', features: [] } as const;
    return { ...known, ...shape, ...(serverPid !== undefined && { serverPid }) };
  }

  function served(one: DeviceInfo): ServedDevice {
    return { ...one, name: `disk${one.id}`, total: { reads: one.id } } as unknown as ServedDevice;
  }

  function machine(infos: DeviceInfo[], ask: Machine['ask']): Machine {
    // Device 3 ends while it is looked at.
    return { list: async () => infos, ask, read: () => (id) => (id === 3 ? undefined : DISK) };
  }

  test('have the counters of their services, or of the kernel alone', async () => {
    const infos = [info(0, 10), info(1, 10), info(2, 11), info(3, 12), info(4)];
    const ask = vi.fn<Machine['ask']>(async (pid) => {
      if (pid === 11) throw new UblkError('ERR_UBLK_NO_SERVICE', 'it does not answer');
      return infos.filter(({ serverPid }) => serverPid === pid).map(served);
    });
    const found = await machineSources(machine(infos, ask));
    expect(found).toMatchObject([
      { info: infos[0], name: 'disk0', counters: { reads: 0 }, disk: DISK },
      { info: infos[1], name: 'disk1', counters: { reads: 1 }, disk: DISK },
      { info: infos[2], counters: undefined, disk: DISK },
      { info: infos[3], name: 'disk3', counters: { reads: 3 }, disk: undefined },
      { info: infos[4], counters: undefined, disk: DISK },
    ]);
    expect(ask.mock.calls).toEqual([[10], [11], [12]]);
  });

  test('have no counters of a service that no longer has them', async () => {
    const asked = async (): Promise<ServedDevice[]> => [served(info(0, 9)), served(info(7, 10))];
    const found = await machineSources(machine([info(0, 10)], asked));
    expect(found).toEqual([
      { info: info(0, 10), name: undefined, counters: undefined, disk: DISK },
    ]);
  });
});
