import { beforeEach, describe, expect, test, vi } from 'vitest';

import { createDevice } from '../../../src/create.ts';
import { native, type NativeDevice, type NativeEnd, type NativePool } from '../../../src/native.ts';
import { createReactorPool, type ReactorPool } from '../../../src/pool.ts';
import { targets } from '../../../src/targets/index.ts';
import { fakeDevice } from '../fake-device.ts';

vi.mock(import('../../../src/native.ts'), async (original) => ({
  ...(await original()),
  native: vi.fn<typeof native>(),
}));

const target = targets.null({ size: '1GiB' });

describe('A pool of reactors', () => {
  const create = vi.fn<NativePool['createDevice']>();
  const close = vi.fn<NativePool['close']>();
  const createPool = vi.fn();
  let pool!: ReactorPool;
  let device!: NativeDevice;

  beforeEach(async () => {
    close.mockReset().mockResolvedValue({ value: undefined });
    create.mockReset().mockImplementation(async (_options, onEnd: (end: NativeEnd) => void) => {
      device = fakeDevice(onEnd);
      return { value: device };
    });
    createPool.mockReset().mockImplementation(async (reactors: number) => ({
      value: { reactors: () => reactors, createDevice: create, close },
    }));
    vi.mocked(native).mockReturnValue({ createPool } as never);
    pool = await createReactorPool({ reactors: 2 });
  });

  test('grows no further than it began, unless told', async () => {
    expect(createPool).toHaveBeenLastCalledWith(2, 2, 0);
    const growing = await createReactorPool({ reactors: 2, maxReactors: 8, spinUsec: 50 });
    expect(createPool).toHaveBeenLastCalledWith(2, 8, 50);
    expect(growing.reactors).toBe(2);
    for (const maxReactors of [1, 1025]) {
      await expect(createReactorPool({ reactors: 2, maxReactors })).rejects.toMatchObject({
        code: 'ERR_UBLK_INVALID_ARGUMENT',
        message: `maxReactors is ${maxReactors}; it must be a whole number from 2 to 1024`,
      });
    }
    expect(createPool).toHaveBeenCalledTimes(2);
  });

  test('that serves devices is not closed, and names them', async () => {
    const one = await createDevice({ target, pool });
    const busy = { code: 'ERR_UBLK_BUSY', message: 'the pool serves /dev/ublkb7' };
    await expect(pool.close()).rejects.toMatchObject(busy);
    expect(close).not.toHaveBeenCalled();
    await one.close();
    await pool.close();
    expect(close).toHaveBeenCalledOnce();
  });

  test('is not closed while a device is being made on it', async () => {
    const busy = { message: 'the pool serves a device that is being created' };
    const { promise: refused, resolve } = withResolvers<unknown>();
    create.mockImplementation(async (_options, onEnd: (end: NativeEnd) => void) => {
      await pool.close().catch(resolve);
      return { value: fakeDevice(onEnd) };
    });
    await createDevice({ target, pool });
    expect(await refused).toMatchObject(busy);
  });

  test('closes although a listener of its device throws', async () => {
    const uncaught = vi.spyOn(process, 'nextTick').mockImplementation(() => {});
    let end!: (end: NativeEnd) => void;
    create.mockImplementation(async (_options, onEnd: (end: NativeEnd) => void) => {
      end = onEnd;
      return { value: fakeDevice(onEnd) };
    });
    const one = await createDevice({ target, pool });
    one.on('error', () => {
      throw new Error('on purpose');
    });
    end({ reason: 'failed', failure: { code: 'ERR_UBLK_KERNEL', message: 'a queue ended' } });
    await expect(one.closed).rejects.toMatchObject({ code: 'ERR_UBLK_KERNEL' });
    uncaught.mockRestore();
    await pool.close();
    expect(close).toHaveBeenCalledOnce();
  });

  test('whose end fails can be closed again, and serves on', async () => {
    close.mockResolvedValueOnce({ failure: { code: 'ERR_UBLK_TIMEOUT', message: 'slow' } });
    await expect(pool.close()).rejects.toMatchObject({ code: 'ERR_UBLK_TIMEOUT' });
    const device = await createDevice({ target, pool });
    await device.close();
    await pool.close();
    expect(close).toHaveBeenCalledTimes(2);
  });

  test('forgets devices that cannot be made', async () => {
    create.mockResolvedValue({ failure: { code: 'ERR_UBLK_BUSY', message: 'busy' } });
    await expect(createDevice({ target, pool })).rejects.toMatchObject({ message: 'busy' });
    await pool.close();
  });

  test('ends once, also by await using', async () => {
    await Promise.all([pool.close(), pool[Symbol.asyncDispose]()]);
    await pool.close();
    expect(close).toHaveBeenCalledOnce();
  });

  test('makes no devices once it is closed', async () => {
    await pool.close();
    await expect(createDevice({ target, pool })).rejects.toMatchObject({ code: 'ERR_UBLK_CLOSED' });
    expect(create).not.toHaveBeenCalled();
  });
});

function withResolvers<T>() {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((settle) => (resolve = settle));
  return { promise, resolve };
}
