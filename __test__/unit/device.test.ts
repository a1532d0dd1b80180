import { once } from 'node:events';

import { beforeEach, describe, expect, test, vi } from 'vitest';

import { Device } from '../../src/device.ts';
import type { NativeEnd } from '../../src/native.ts';
import { fakeDevice } from './fake-device.ts';

const failed: NativeEnd = {
  reason: 'failed',
  failure: { code: 'ERR_UBLK_KERNEL', message: 'a queue ended', errno: 5 },
};

describe('Device', () => {
  let end!: (end: NativeEnd) => void;
  let native!: ReturnType<typeof fakeDevice>;
  let device!: Device;

  beforeEach(() => {
    const ended = new Promise<NativeEnd>((resolve) => (end = resolve));
    native = fakeDevice(end);
    device = new Device(native, ended);
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
});
