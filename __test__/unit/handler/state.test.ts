import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';

import { openControl } from '../../../src/control/open.ts';
import type { Outcome } from '../../../src/errors.ts';
import { handler } from '../../../src/handler/handler.ts';
import { checkKeepers, fromText, toText } from '../../../src/handler/state.ts';
import type { Handler } from '../../../src/handler/types.ts';
import { handOver, planHandOver } from '../../../src/handover/hand-over.ts';
import { native, type NativeDevice, type NativeEnd } from '../../../src/native.ts';
import { Service } from '../../../src/service/service.ts';
import { FakeChannel } from './fake-channel.ts';
import { fakeDevice } from '../fake-device.ts';

vi.mock(import('../../../src/native.ts'), async (original) => ({
  ...(await original()),
  native: vi.fn<typeof native>(),
}));

type Recover = (
  id: number,
  options: object,
  end: (end: NativeEnd) => void,
) => Promise<Outcome<NativeDevice>>;

const recoverDevice = vi.fn<Recover>();
let first: ReturnType<typeof fakeDevice>;

beforeEach(() => {
  recoverDevice.mockReset();
  recoverDevice.mockImplementation(async (_id, _options, end) => ({ value: fakeDevice(end) }));
  vi.mocked(native).mockReturnValue({
    listDevices: async () => ({ value: [] }),
    deviceInfo: async () => ({
      value: { ...first.info(), recovery: 'reissue', features: ['QUIESCE'] },
    }),
    createDevice: async (_: unknown, end: (end: NativeEnd) => void) => {
      first = fakeDevice(end);
      return { value: first };
    },
    createBridge: () => ({ value: { id: 1, release: () => {} } }),
    openChannel: () => ({ value: new FakeChannel() }),
    checkRecovery: async () => ({ value: true }),
    recoverDevice,
  } as never);
});

/** A handler that counts, and what happened to it. */
function counter(from = 0) {
  const seen: string[] = [];
  let count = from;
  const target = {
    size: '1MiB',
    read() {},
    suspend: async () => {
      seen.push('suspend');
      return { count: (count += 1), bytes: Buffer.from('state') };
    },
    resume: async (state: { count: number; bytes: Uint8Array }) => {
      seen.push(`resume ${state.count} ${Buffer.from(state.bytes).toString()}`);
      count = state.count;
    },
  } satisfies Handler;
  return { target: handler(target), seen };
}

const configOf = (target: Handler | ReturnType<typeof counter>['target']) =>
  ({ devices: { data: { target, recovery: 'reissue' } } }) as const;

async function start(target: Handler) {
  const folder = mkdtempSync(join(tmpdir(), 'ublk-state-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'ublk.sock');
  const service = new Service();
  await service.reload(configOf(target));
  const control = await openControl(service, { path });
  onTestFinished(() => control.close());
  return { path, service };
}

describe('the state of a handler', () => {
  test('goes to the next server before the first request', async () => {
    const [old, next] = [counter(), counter()];
    const { path } = await start(old.target);
    recoverDevice.mockImplementationOnce(async (_id, _options, end) => {
      next.seen.push('serves');
      return { value: fakeDevice(end) };
    });
    await handOver(configOf(next.target), { path });
    expect(old.seen).toEqual(['suspend']);
    expect(next.seen).toEqual(['resume 1 state', 'serves']);
  });

  test('comes back when the hand-over fails', async () => {
    const [old, next] = [counter(), counter()];
    const { path } = await start(old.target);
    recoverDevice.mockResolvedValueOnce({
      failure: { code: 'ERR_UBLK_BAD_BACKEND', message: 'size was 2 and is 1' },
    });
    await expect(handOver(configOf(next.target), { path })).rejects.toThrow('size was 2');
    expect(old.seen).toEqual(['suspend', 'resume 1 state']);
  });

  test('is not asked for where the device stays', async () => {
    const old = counter();
    const { path, service } = await start(old.target);
    first.quiesce.mockResolvedValueOnce({
      failure: { code: 'ERR_UBLK_TIMEOUT', message: 'requests do not end' },
    });
    await expect(handOver(configOf(counter().target), { path })).rejects.toThrow('do not end');
    await service.devices.get('data')!.close();
    expect(old.seen).toEqual([]);
  });

  test('is asked for once, however many hand-overs have failed before', async () => {
    const old = counter();
    const { path } = await start(old.target);
    first.quiesce.mockResolvedValueOnce({
      failure: { code: 'ERR_UBLK_TIMEOUT', message: 'requests do not end' },
    });
    const config = configOf(counter().target);
    await expect(handOver(config, { path })).rejects.toThrow('do not end');
    await handOver(config, { path });
    expect(old.seen).toEqual(['suspend']);
  });

  test('that the next handler does not take is refused before anything changes', async () => {
    const { path } = await start(counter().target);
    const config = configOf({ size: '1MiB', read() {} });
    const message = "the old server's handler has state, and the new one has no resume()";
    const [step] = await planHandOver(config, { path });
    expect(step?.error).toMatchObject({ message: expect.stringContaining(message) as string });
    await expect(handOver(config, { path })).rejects.toThrow(message);
    expect(first.quiesce).not.toHaveBeenCalled();
  });

  test('that cannot be had leaves the device with the old server', async () => {
    const failing: Handler = {
      size: '1MiB',
      read() {},
      resume() {},
      suspend: () => Promise.reject(new Error('not now')),
    };
    const { path, service } = await start(failing);
    const expected = "device 'data' cannot be handed over: the handler's suspend() fails: not now";
    await expect(handOver(configOf(counter().target), { path })).rejects.toThrow(expected);
    expect([...service.devices.keys()]).toEqual(['data']);
  });

  test.each([
    [{ suspend() {} }, "the handler has 'suspend' but no 'resume'"],
    [{ resume() {} }, "the handler has 'resume' but no 'suspend'"],
    [{ suspend: 3, resume() {} }, 'suspend must be a function, not number'],
  ])('%o is refused', (methods, message) => {
    const definition = { size: '1MiB', read() {}, ...methods } as unknown as Handler;
    expect(() => handler(definition)).toThrow(
      expect.objectContaining({ code: 'ERR_UBLK_INVALID_ARGUMENT', message }),
    );
  });
});

test('a state is any value that structuredClone() takes, of at most 64 MiB', () => {
  const states = [new Map([[1n, new Date(0)]]), undefined, new Uint8Array([1, 2])];
  expect(fromText(toText(states))).toEqual(states);
  const code = 'ERR_UBLK_HANDLER';
  expect(() => toText([() => {}])).toThrow(expect.objectContaining({ code }));
  expect(() => toText([Buffer.alloc(64 << 20)])).toThrow('at most 67108864 are handed over');
  expect(() => fromText('AAAA')).toThrow('this Node.js cannot read the state');
});

test('states go to as many threads as they are of', () => {
  checkKeepers(0, 0);
  checkKeepers(2, 2);
  expect(() => checkKeepers(2, 3)).toThrow('has state in 2 threads, and the new one runs in 3');
});
