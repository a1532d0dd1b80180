import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { beforeEach, expect, onTestFinished, test, vi } from 'vitest';

import { openControl } from '../../../src/control/open.ts';
import type { Outcome } from '../../../src/errors.ts';
import { greet } from '../../../src/handover/connect.ts';
import { handOver, planHandOver } from '../../../src/handover/hand-over.ts';
import { native, type NativeDevice, type NativeEnd } from '../../../src/native.ts';
import { Service } from '../../../src/service/service.ts';
import { fakeDevice } from '../fake-device.ts';

vi.mock(import('../../../src/native.ts'), async (original) => ({
  ...(await original()),
  native: vi.fn<typeof native>(),
}));

type Fake = ReturnType<typeof fakeDevice>;
type Recover = (
  id: number,
  options: object,
  onEnd: (end: NativeEnd) => void,
) => Promise<Outcome<NativeDevice>>;

const CONFIG = {
  devices: { data: { target: { kind: 'null', size: '1GiB' }, recovery: 'reissue' } },
} as const;
const REFUSED = { failure: { code: 'ERR_UBLK_BAD_BACKEND', message: 'size was 2 and is 1' } };

/** The device of the old server. */
let first: Fake;
const recoverDevice = vi.fn<Recover>();
const checkRecovery = vi.fn<() => Promise<Outcome<boolean>>>();
const info = () => ({ ...first.info(), recovery: 'reissue', features: ['QUIESCE'] });

beforeEach(() => {
  recoverDevice.mockReset();
  recoverDevice.mockImplementation(async (_id, _options, end) => ({ value: fakeDevice(end) }));
  checkRecovery.mockReset();
  checkRecovery.mockResolvedValue({ value: true });
  vi.mocked(native).mockReturnValue({
    listDevices: async () => ({ value: [] }),
    deviceInfo: async () => ({ value: info() }),
    createDevice: async (_: unknown, end: (end: NativeEnd) => void) => {
      first = fakeDevice(end);
      return { value: first };
    },
    recoverDevice,
    checkRecovery,
  } as never);
});

/** A service that can be taken over. */
async function start() {
  const folder = mkdtempSync(join(tmpdir(), 'ublk-hand-over-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'ublk.sock');
  const service = new Service();
  await service.reload(CONFIG);
  const control = await openControl(service, { path });
  onTestFinished(() => control.close());
  return { path, service, control };
}

test('a service hands its devices and the place of its control socket over', async () => {
  const { path, service } = await start();
  const successors: number[] = [];
  service.on('handOver', (pid) => void successors.push(pid));
  const next = await handOver(CONFIG, { path });
  expect([...next.devices.keys()]).toEqual(['data']);
  expect(service.devices.size).toBe(0);
  expect(successors).toEqual([process.pid]);
  await using _control = await openControl(next, { path });
  await expect(service.reload(CONFIG)).rejects.toMatchObject({ code: 'ERR_UBLK_CLOSED' });
});

test('a plan of a hand-over leaves the devices with the old server', async () => {
  const { path, service } = await start();
  const step = { name: 'data', id: 7, action: 'take-over' };
  expect(await planHandOver(CONFIG, { path })).toMatchObject([step]);
  checkRecovery.mockResolvedValue(REFUSED);
  expect(await planHandOver(CONFIG, { path })).toMatchObject([
    { ...step, error: { code: 'ERR_UBLK_BAD_BACKEND' } },
  ]);
  await expect(handOver(CONFIG, { path })).rejects.toMatchObject({
    code: 'ERR_UBLK_BAD_BACKEND',
    message: "device 'data' cannot be taken over: size was 2 and is 1; the old server goes on",
  });
  expect(first.quiesce).not.toHaveBeenCalled();
  expect(service.devices.size).toBe(1);
});

test('a device that the new server cannot serve is served by the old server again', async () => {
  const { path, service } = await start();
  recoverDevice.mockResolvedValueOnce(REFUSED);
  await expect(handOver(CONFIG, { path })).rejects.toMatchObject({
    message: "device 'data' cannot be taken over: size was 2 and is 1",
  });
  expect(recoverDevice).toHaveBeenCalledTimes(2);
  expect([...service.devices.keys()]).toEqual(['data']);
  // The next attempt finds everything as the first one did.
  expect((await handOver(CONFIG, { path })).devices.size).toBe(1);
});

test('a device that the old server cannot leave stays with the old server', async () => {
  const { path, service } = await start();
  first.quiesce.mockResolvedValueOnce({
    failure: { code: 'ERR_UBLK_TIMEOUT', message: 'requests do not end' },
  });
  await expect(handOver(CONFIG, { path })).rejects.toMatchObject({
    code: 'ERR_UBLK_TIMEOUT',
    message: "device 'data' cannot be handed over: requests do not end",
  });
  expect(recoverDevice).not.toHaveBeenCalled();
  expect(service.devices.size).toBe(1);
});

test.each(['yours', 'bye'])(
  'a new server that dies at %s leaves all to the old one',
  async (at) => {
    const { path, service } = await start();
    const { wire, hello } = await greet(path);
    wire.send({ message: 'ready', pid: hello.pid, devices: hello.devices });
    let said = await wire.next();
    if (at === 'bye') {
      wire.send({ message: 'alive', name: 'data' });
      said = await wire.next();
    }
    expect(said.message).toBe(at);
    wire.end();
    await vi.waitFor(() => expect([...service.devices.keys()]).toEqual(['data']));
    // The control socket is there as before.
    await vi.waitFor(async () => expect(await planHandOver(CONFIG, { path })).toHaveLength(1));
  },
);

test('an old server that dies leaves all devices to the new one', async () => {
  const { path, control } = await start();
  first.quiesce.mockImplementationOnce(async () => {
    await control.close();
    return await new Promise(() => {});
  });
  const next = await handOver(CONFIG, { path });
  expect([...next.devices.keys()]).toEqual(['data']);
  expect(recoverDevice).toHaveBeenCalledTimes(1);
});

test('a hand-over that is given up leaves the devices with the old server', async () => {
  const { path, service } = await start();
  const given = new AbortController();
  let taken: Fake | undefined;
  recoverDevice.mockImplementationOnce(async (_id, _options, end) => {
    given.abort(new Error('enough'));
    taken = fakeDevice(end);
    return { value: taken };
  });
  await expect(handOver(CONFIG, { path, signal: given.signal })).rejects.toThrow('enough');
  expect(taken?.quiesce).toHaveBeenCalledTimes(1);
  expect([...service.devices.keys()]).toEqual(['data']);
});

test('a server whose devices have changed since hello hands nothing over', async () => {
  const { path, service } = await start();
  const { wire, hello } = await greet(path);
  wire.send({ message: 'ready', pid: hello.pid, devices: [] });
  expect(await wire.next()).toMatchObject({ message: 'refused', error: { code: 'ERR_UBLK_BUSY' } });
  expect(await wire.next()).toEqual({ message: 'end' });
  expect(service.devices.size).toBe(1);
});

test.each([{}, { devices: 5 }, { devices: [null] }, { devices: [{ name: 'data', id: '7' }] }])(
  'a peer that says ready without its devices is refused, and the old server goes on: %j',
  async (ready) => {
    const { path, service } = await start();
    const { wire } = await greet(path);
    wire.send({ message: 'ready', pid: process.pid, ...ready } as never);
    expect(await wire.next()).toMatchObject({ message: 'refused' });
    wire.end();
    expect(first.quiesce).not.toHaveBeenCalled();
    expect(service.devices.size).toBe(1);
    await service.reload(CONFIG);
  },
);
