import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, onTestFinished, test, vi } from 'vitest';

import { serviceManager } from '../../../src/cli/systemd/manager.ts';
import { notices } from '../../../src/cli/systemd/notices.ts';
import { feedWatchdog } from '../../../src/cli/systemd/watchdog.ts';
import { invalid } from '../../../src/errors.ts';
import { native } from '../../../src/native.ts';
import { Service } from '../../../src/service/service.ts';
import { notifySocket } from '../../notify-socket.ts';

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'ublk-notify-'));
  onTestFinished(() => rmSync(path, { recursive: true }));
  return path;
}

test.each([
  ['a path', () => join(folder(), 'notify')],
  ['an abstract name', () => `@ublk-notify-${process.pid}`],
])('a service manager at %s hears what it is told', async (_, address) => {
  const at = address();
  using socket = await notifySocket(at);
  const manager = serviceManager({ NOTIFY_SOCKET: at });
  manager?.tell('READY=1', 'STATUS=two\nlines');
  expect(await socket.heard()).toBe('READY=1\nSTATUS=two lines');
});

test('a service manager that is not there is a warning, once, and leaves nothing behind', () => {
  const said = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  onTestFinished(() => said.mockRestore());
  const address = join(folder(), 'notify');
  const manager = serviceManager({ NOTIFY_SOCKET: address });
  manager?.tell('READY=1');
  manager?.tell('WATCHDOG=1');
  const warning = `warning: cannot notify the service manager at ${address}: No such file`;
  expect(said.mock.calls.map(([text]) => String(text).slice(0, warning.length))).toEqual([warning]);
  expect(existsSync(address)).toBe(false);
});

test('processes below do not inherit the service manager, nor does another one its watchdog', () => {
  const env = { NOTIFY_SOCKET: '/x', WATCHDOG_USEC: '30000000', WATCHDOG_PID: `${process.pid}` };
  expect(serviceManager(env)?.watchdogMs).toBe(30_000);
  expect(env).toEqual({});
  const other = { NOTIFY_SOCKET: '/x', WATCHDOG_USEC: '30000000', WATCHDOG_PID: '1' };
  expect(serviceManager(other)?.watchdogMs).toBeUndefined();
  expect(serviceManager({ NOTIFY_SOCKET: '/x' })?.watchdogMs).toBeUndefined();
  expect(serviceManager({ WATCHDOG_USEC: '1' })).toBeUndefined();
});

test('the watchdog is fed only while no reactor stands still, and the first news of it are said', () => {
  vi.useFakeTimers();
  const said = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  onTestFinished(() => (vi.useRealTimers(), said.mockRestore()));
  const tell = vi.fn<(...lines: string[]) => void>();
  let silent: string[] = [];
  using _feeding = feedWatchdog({ tell, watchdogMs: 4000 }, () => silent);
  vi.advanceTimersByTime(2000);
  expect(tell.mock.calls).toEqual([['WATCHDOG=1'], ['WATCHDOG=1']]);
  silent = ['ublk0q0'];
  vi.advanceTimersByTime(3000);
  expect(tell).toHaveBeenCalledTimes(2);
  expect(said.mock.calls).toEqual([['ublk0q0 does not answer; the watchdog is not fed\n']]);
  silent = [];
  vi.advanceTimersByTime(1000);
  expect(tell).toHaveBeenCalledTimes(3);
});

test('a process without reactors has none that stand still', () => {
  expect(native().silentReactors()).toEqual([]);
  expect(native().silentReactors()).toEqual([]);
});

/** A service with devices and results of a test's choice. */
class FakeService extends Service {
  readonly served = new Map<string, never>();
  failed: string[] = [];

  override get devices(): ReadonlyMap<string, never> {
    return this.served;
  }

  override get results() {
    const step = { action: 'create', why: '', remains: [] } as const;
    return this.failed.map((name) => ({ ...step, name, error: invalid('no') }));
  }
}

test('a service manager hears of readiness, of each reload, of devices, and of the end', () => {
  const service = new FakeService();
  const stop = new AbortController();
  const tell = vi.fn<(...lines: string[]) => void>();
  const { ready, reloading } = notices(service, stop.signal, { tell, watchdogMs: undefined });
  const heard = () => tell.mock.calls.splice(0).map((lines) => lines.join('|'));
  const device = {} as never;

  reloading();
  service.served.set('data', device);
  service.emit('serve', 'data', device);
  expect(heard()).toEqual([]);
  service.failed = ['scratch'];
  ready();
  expect(heard()).toEqual(['READY=1|STATUS=1 device served; 1 failed: scratch']);

  reloading();
  expect(heard()[0]).toMatch(/^RELOADING=1\|MONOTONIC_USEC=\d+$/);
  service.failed = [];
  ready();
  expect(heard()).toEqual(['READY=1|STATUS=1 device served']);

  service.emit('stall', 'data', device, { inFlight: 1, seconds: 30 });
  service.emit('resume', 'data', device);
  const stalled = 'STATUS=1 device served; no completions: data';
  expect(heard()).toEqual([stalled, 'STATUS=1 device served']);

  stop.abort();
  service.served.clear();
  service.emit('end', 'data', device);
  ready();
  const ending = 'STOPPING=1|STATUS=ending, 1 device served';
  expect(heard()).toEqual([ending, 'STATUS=ending, 0 devices served']);
});

test('a service that serves nothing is not ready', () => {
  const tell = vi.fn<(...lines: string[]) => void>();
  const { signal } = new AbortController();
  notices(new FakeService(), signal, { tell, watchdogMs: undefined }).ready();
  expect(tell).not.toHaveBeenCalled();
});
