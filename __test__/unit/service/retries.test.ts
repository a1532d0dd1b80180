import { EventEmitter } from 'node:events';

import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { UblkError, UblkErrorCode } from '../../../src/errors.ts';
import { native, type NativeDevice, type NativeEnd } from '../../../src/native.ts';
import type { Outcome } from '../../../src/errors.ts';
import { retryFailed, type Retry } from '../../../src/service/retries.ts';
import { Service, type ServiceResult } from '../../../src/service/service.ts';
import { fakeDevice } from '../fake-device.ts';

vi.mock(import('../../../src/native.ts'), async (original) => ({
  ...(await original()),
  native: vi.fn<typeof native>(),
}));

const gone = new UblkError(UblkErrorCode.NoBackend, 'no such file');
const step = (name: string, error?: UblkError): ServiceResult => ({
  name,
  action: 'create',
  why: 'missing',
  remains: [],
  ...(error && { error }),
});

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** A service of which only events and retries are looked at. */
function rig(results: ServiceResult[] = []) {
  const retry = vi.fn<(name: string) => Promise<ServiceResult | undefined>>(async (name) =>
    step(name, gone),
  );
  const service = Object.assign(new EventEmitter(), { results, retry, handingOver: false });
  const told: Retry[] = [];
  const given = new AbortController();
  const retries = retryFailed(service as never, given.signal, (one) => told.push(one));
  return { service, retry, told, given, retries };
}

test('a device that cannot be served is tried again after longer and longer pauses', async () => {
  const { retry, told } = rig([step('data', gone), step('other')]);
  const times: number[] = [];
  const begin = Date.now();
  retry.mockImplementation(async (name) => {
    times.push((Date.now() - begin) / 1000);
    return step(name, gone);
  });
  await vi.advanceTimersByTimeAsync(250_000);
  expect(times).toEqual([1, 3, 7, 15, 31, 63, 123, 183, 243]);
  expect(told).toEqual([{ name: 'data', error: gone, afterMs: 1000 }]);
});

test('a device whose service has failed is tried again, and one that somebody has stopped is not', async () => {
  const { service, retry } = rig();
  service.emit('end', 'stopped', {});
  service.emit('end', 'data', {}, gone);
  await vi.advanceTimersByTimeAsync(1000);
  expect(retry.mock.calls.map(([name]) => name)).toEqual(['data']);
});

test('a device that has served for a minute begins anew, and one that fails at once does not', async () => {
  const { service, retry } = rig();
  retry.mockImplementation(async (name) => {
    service.emit('serve', name);
    return step(name);
  });
  for (const [served, pause] of [
    [0, 1000],
    [59_000, 2000],
    [60_000, 1000],
  ] as const) {
    await vi.advanceTimersByTimeAsync(served);
    const before = retry.mock.calls.length;
    service.emit('end', 'data', {}, gone);
    await vi.advanceTimersByTimeAsync(pause - 1);
    expect(retry.mock.calls.length).toBe(before);
    await vi.advanceTimersByTimeAsync(1);
    expect(retry.mock.calls.length).toBe(before + 1);
  }
});

test('what only people can change is not tried again, nor anything at the end of the service', async () => {
  const wrong = new UblkError(UblkErrorCode.InvalidArgument, 'no target');
  const { service, retry, given, retries } = rig([step('wrong', wrong)]);
  service.handingOver = true;
  service.emit('end', 'handed', {}, gone);
  service.handingOver = false;
  await vi.advanceTimersByTimeAsync(100_000);
  expect(retry).not.toHaveBeenCalled();
  service.emit('reload', [step('late', gone)]);
  retries[Symbol.dispose]();
  service.emit('end', 'data', {}, gone);
  given.abort();
  await vi.advanceTimersByTimeAsync(100_000);
  expect(retry).not.toHaveBeenCalled();
});

test('a service tries one device, and leaves the others as they are', async () => {
  vi.useRealTimers();
  let isThere = false;
  const ends: ((end: NativeEnd) => void)[] = [];
  const createDevice = vi.fn<
    (options: { id?: number }, end: (end: NativeEnd) => void) => Promise<Outcome<NativeDevice>>
  >(async ({ id }, end) => {
    const failure = { code: 'ERR_UBLK_NO_BACKEND', message: 'no such file' };
    if (id === 1 && !isThere) return { failure };
    ends.push(end);
    return { value: fakeDevice(end) };
  });
  const listDevices = async () => ({ value: [] });
  vi.mocked(native).mockReturnValue({ listDevices, createDevice } as never);
  const service = new Service();
  const target = { kind: 'null', size: '1MiB' } as const;
  const devices = { left: { target, id: 0 }, late: { target, id: 1 } };
  const results = await service.reload({ devices });
  expect(results.find(({ name }) => name === 'late')?.error?.code).toBe('ERR_UBLK_NO_BACKEND');
  await service.devices.get('left')!.close();
  expect(await service.retry('late')).toMatchObject({ error: { code: 'ERR_UBLK_NO_BACKEND' } });
  isThere = true;
  expect(await service.retry('late')).toMatchObject({ name: 'late', action: 'create' });
  expect([...service.devices.keys()]).toEqual(['late']);
  expect(service.results.every(({ error }) => error === undefined)).toBe(true);
  expect(await service.retry('late')).toBeUndefined();
  expect(await service.retry('nobody')).toBeUndefined();
});
