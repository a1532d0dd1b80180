import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { inspect } from 'node:util';

import { beforeEach, describe, expect, test, vi } from 'vitest';

import { Device } from '../../../src/device.ts';
import { UblkError } from '../../../src/errors.ts';
import type { NativeEnd } from '../../../src/native.ts';
import { fakeDevice } from '../fake-device.ts';

const failed: NativeEnd = {
  reason: 'failed',
  failure: { code: 'ERR_UBLK_KERNEL', message: 'a queue ended', errno: 5 },
};

/** Whether anything of this package keeps the event loop alive. */
function keepsAlive(): boolean {
  return timers.some((timer) => timer.hasRef());
}

const timers: NodeJS.Timeout[] = [];

describe('Device', () => {
  let end!: (end: NativeEnd) => void;
  let native!: ReturnType<typeof fakeDevice>;
  let device!: Device;

  beforeEach(() => {
    const ended = new Promise<NativeEnd>((resolve) => (end = resolve));
    native = fakeDevice(end);
    const interval = vi.spyOn(globalThis, 'setInterval');
    device = new Device(native, ended);
    timers.splice(0, Infinity, interval.mock.results[0]!.value as NodeJS.Timeout);
    interval.mockRestore();
    return () => device.close();
  });

  test('says what the kernel made of it', () => {
    expect(device).toMatchObject({ id: 7, path: '/dev/ublkb7', size: 1 << 30, queues: 2 });
    expect(device).toMatchObject({ depth: 128, logicalBlockSize: 4096, readOnly: false });
    expect(device.buffers).toEqual({ mode: 'auto', exchange: 'per-io' });
    expect(device.features).toEqual(['AUTO_BUF_REG']);
  });

  test('names what is beside its buffer mode', () => {
    const more = fakeDevice(end);
    more.buffers = () => ({ mode: 'auto', userCopy: true, shared: true });
    const { buffers } = new Device(more, new Promise(() => {})).unref();
    expect(buffers).toEqual({ mode: 'auto', exchange: 'per-io', userCopy: true, shared: true });
  });

  test('forks and snapshots, with absolute paths', async () => {
    const snapshot = await device.fork(['a.layer', '/disks/b.layer'], { path: '/disks/7.layer' });
    expect(snapshot).toMatchObject({ path: '/disks/7.layer', generation: 7 });
    await device.snapshot();
    expect(native.snapshot.mock.calls).toEqual([
      [[resolve('a.layer'), '/disks/b.layer'], '/disks/7.layer'],
      [[], undefined],
    ]);
  });

  test.each([
    [() => device.fork([]), /children must be an array of paths, at least one/],
    [() => device.fork('a.layer' as never), /children must be an array of paths/],
    [() => device.fork([7 as never]), /children\[0\] is 7/],
    [() => device.fork(['a'], { name: 'b' } as never), /options of fork\(\) has no 'name'/],
    [() => device.flatten({ name: 'b' } as never), /options of flatten\(\) has no 'name'/],
    [() => device.flatten({ bytesPerSecond: 'b' }), /bytesPerSecond/],
    [() => device.snapshot({ path: 7 as never }), /path is 7/],
  ])('refuses %s', async (call, message) => {
    await expect(call()).rejects.toThrow(message);
    expect(native.snapshot).not.toHaveBeenCalled();
  });

  test('takes shared memory back once, however often it is told to', async () => {
    const memory = await device.share('/dev/shm/clients', { readOnly: true });
    expect(native.share).toHaveBeenCalledWith('/dev/shm/clients', true);
    expect(memory).toMatchObject({ path: '/dev/shm/clients', index: 3 });
    await memory.close();
    await memory[Symbol.asyncDispose]();
    expect(native.unshare.mock.calls).toEqual([[3]]);
  });

  test('refuses to share what cannot be a path', async () => {
    await expect(device.share('')).rejects.toThrow('path is ""');
    await expect(device.share('a', { readonly: true } as never)).rejects.toThrow("no 'readonly'");
    expect(native.share).not.toHaveBeenCalled();
  });

  test('tells no warning after its last event', async () => {
    const events: string[] = [];
    device.on('warning', ({ message }) => events.push(message));
    device.on('close', () => events.push('close'));
    const printed = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    device.warn(new UblkError('ERR_UBLK_HANDLER', 'early'));
    await device.close();
    device.warn(new UblkError('ERR_UBLK_HANDLER', 'late'));
    expect(events).toEqual(['early', 'close']);
    expect(printed.mock.calls).toMatchObject([[{ message: 'late' }]]);
    printed.mockRestore();
  });

  test('adds up the counters of its queues', () => {
    const { queues, total } = device.stats();
    expect(queues).toHaveLength(2);
    expect(total).toMatchObject({ reads: 3, readBytes: 8704, writes: 0 });
  });

  test('closes once, however often it is told to', async () => {
    expect(device.close()).toBe(device.close());
    await device.close();
    await device[Symbol.asyncDispose]();
    expect(native.close).toHaveBeenCalledOnce();
    await expect(device.closed).resolves.toBe('closed');
  });

  test("emits 'close' before close() resolves", async () => {
    const closed = vi.fn<() => void>();
    device.on('close', closed);
    await device.close();
    expect(closed).toHaveBeenCalledOnce();
  });

  test('can be closed again when closing did not end it', async () => {
    native.close.mockResolvedValueOnce({ failure: { code: 'ERR_UBLK_TIMEOUT', message: 'slow' } });
    await expect(device.close()).rejects.toMatchObject({ code: 'ERR_UBLK_TIMEOUT' });
    await device.close();
    expect(native.close).toHaveBeenCalledTimes(2);
  });

  test('stopped by somebody else, says so', async () => {
    const closed = once(device, 'close');
    end({ reason: 'stopped' });
    await expect(device.closed).resolves.toBe('stopped');
    await closed;
  });

  test('that fails tells its error listener, then closes', async () => {
    const events: unknown[] = [];
    device.on('error', (error) => events.push(error.code));
    device.on('close', () => events.push('close'));
    end(failed);
    await expect(device.closed).rejects.toMatchObject({ code: 'ERR_UBLK_KERNEL' });
    expect(events).toEqual(['ERR_UBLK_KERNEL', 'close']);
  });

  test('that fails rejects `closed` when nobody listens', async () => {
    end(failed);
    await expect(device.closed).rejects.toMatchObject({ code: 'ERR_UBLK_KERNEL', errno: 5 });
  });

  test('that has ended is closed without asking the kernel again', async () => {
    end(failed);
    await device.closed.catch(() => {});
    await expect(device.close()).resolves.toBeUndefined();
    expect(native.close).not.toHaveBeenCalled();
  });

  test('that fails while it is closed tells the one who closes it, and nobody else', async () => {
    const told = vi.fn<(error: unknown) => void>();
    device.on('error', told);
    native.close.mockImplementation(async () => {
      end(failed);
      return { failure: failed.failure! };
    });
    await expect(device.close()).rejects.toMatchObject({ code: 'ERR_UBLK_KERNEL' });
    expect(told).not.toHaveBeenCalled();
  });

  test('is open again to its program when closing it fails', async () => {
    native.close.mockResolvedValueOnce({ failure: { code: 'ERR_UBLK_TIMEOUT', message: 'slow' } });
    const told = vi.fn<(error: unknown) => void>();
    device.on('error', told);
    const alive = vi.spyOn(globalThis, 'clearInterval');
    await expect(device.close()).rejects.toMatchObject({ code: 'ERR_UBLK_TIMEOUT' });
    expect(alive).not.toHaveBeenCalled();
    expect(keepsAlive()).toBe(true);
    end(failed);
    await expect(device.closed).rejects.toMatchObject({ code: 'ERR_UBLK_KERNEL' });
    expect(told).toHaveBeenCalledOnce();
  });

  test('is not kept alive against its wish when quiescing it fails', async () => {
    native.quiesce.mockResolvedValueOnce({
      failure: { code: 'ERR_UBLK_TIMEOUT', message: 'slow' },
    });
    device.unref();
    const quiesced = device.quiesce();
    expect(keepsAlive()).toBe(true);
    await expect(quiesced).rejects.toMatchObject({ code: 'ERR_UBLK_TIMEOUT' });
    expect(keepsAlive()).toBe(false);
    device.ref();
    expect(keepsAlive()).toBe(true);
  });

  test('is closed while it is quiesced', async () => {
    native.quiesce.mockImplementationOnce(async () => {
      await device.closed;
      return { value: undefined };
    });
    const quiesced = device.quiesce();
    await device.close();
    expect(native.close).toHaveBeenCalledOnce();
    await expect(quiesced).rejects.toMatchObject({ code: 'ERR_UBLK_CLOSED' });
    await expect(device.quiesce()).rejects.toMatchObject({ code: 'ERR_UBLK_CLOSED' });
  });

  test.each(['error', 'close'] as const)('ends although a listener of %s throws', async (event) => {
    const thrown = new Error('on purpose');
    const uncaught = vi.spyOn(process, 'nextTick').mockImplementation(() => {});
    const heard = vi.fn<(message: unknown) => void>();
    subscribe('ublk:device.end', heard);
    device.on('error', () => {});
    device.prependListener(event, () => {
      throw thrown;
    });
    end(failed);
    await expect(device.closed).rejects.toMatchObject({ code: 'ERR_UBLK_KERNEL' });
    unsubscribe('ublk:device.end', heard);
    expect(heard).toHaveBeenCalledOnce();
    const rethrow = uncaught.mock.calls.find(([call]) => String(call).includes('thrown'))![0];
    uncaught.mockRestore();
    expect(rethrow).toThrow(thrown);
  });

  test('says itself what it is, to people and as JSON', async () => {
    const shown = { id: 7, path: '/dev/ublkb7', state: 'live', buffers: { mode: 'auto' } };
    expect(JSON.parse(JSON.stringify(device))).toMatchObject(shown);
    expect(inspect(device)).toMatch(/^Device \{\s+id: 7,\s+path: '\/dev\/ublkb7',/);
    await device.close();
    expect(device.toJSON()).toMatchObject({ state: 'dead' });
    expect(device.toJSON()).not.toHaveProperty('serverPid');
  });

  test('memory that cannot be taken back can be tried again', async () => {
    native.unshare.mockResolvedValueOnce({ failure: { code: 'ERR_UBLK_BUSY', message: 'busy' } });
    const memory = await device.share('/dev/shm/clients');
    await expect(memory.close()).rejects.toMatchObject({ code: 'ERR_UBLK_BUSY' });
    await memory.close();
    expect(native.unshare).toHaveBeenCalledTimes(2);
  });

  test('an attempt that fails before it begins is forgotten too', async () => {
    native.close.mockImplementationOnce(() => {
      throw new Error('no thread');
    });
    await expect(device.close()).rejects.toThrow('no thread');
    await device.close();
    expect(native.close).toHaveBeenCalledTimes(2);
  });
});

describe('A device with recovery', () => {
  test('is released at the end of its scope, and removed by close()', async () => {
    const made = [1, 2].map(() => {
      let end!: (end: NativeEnd) => void;
      const ended = new Promise<NativeEnd>((resolve) => (end = resolve));
      const native = fakeDevice(end);
      const info = native.info();
      native.info = () => ({ ...info, recovery: 'reissue' });
      return { native, device: new Device(native, ended) };
    });
    const [scoped, closed] = [made[0]!, made[1]!];
    await scoped.device[Symbol.asyncDispose]();
    expect(scoped.native.release).toHaveBeenCalledOnce();
    expect(scoped.native.close).not.toHaveBeenCalled();
    await closed.device.close();
    await closed.device[Symbol.asyncDispose]();
    expect(closed.native.release).not.toHaveBeenCalled();
  });
});
