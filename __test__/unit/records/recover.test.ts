import { beforeEach, describe, expect, test, vi } from 'vitest';

import { toNativeOptions } from '../../../src/options.ts';
import { quiesceDevice, resizeDevice, setDeviceAffinity } from '../../../src/devices.ts';
import { native, type NativeDevice, type NativeEnd } from '../../../src/native.ts';
import { recoverDevice } from '../../../src/recover.ts';
import { targets } from '../../../src/targets/index.ts';
import { fakeDevice } from '../fake-device.ts';

vi.mock(import('../../../src/native.ts'), async (original) => ({
  ...(await original()),
  native: vi.fn<typeof native>(),
}));

const target = targets.null({ size: '1GiB' });
const binding = {
  deviceInfo: vi.fn<() => unknown>(),
  recoverDevice:
    vi.fn<(id: number, options: object, onEnd: (end: NativeEnd) => void) => Promise<unknown>>(),
  quiesceDevice: vi.fn<() => unknown>(),
  resizeDevice: vi.fn<() => unknown>(),
  setDeviceAffinity: vi.fn<() => unknown>(),
};
let made: NativeDevice;

beforeEach(() => {
  vi.resetAllMocks();
  vi.mocked(native).mockReturnValue(binding as never);
  binding.deviceInfo.mockResolvedValue({ value: { id: 7, queues: 2, depth: 64 } });
  binding.recoverDevice.mockImplementation(async (_id, _options, onEnd) => {
    made = fakeDevice(onEnd);
    return { value: made };
  });
});

describe('recoverDevice', () => {
  test('serves with the queues and the depth that the device has', async () => {
    await using device = await recoverDevice(7, { target, affinity: [1] });
    const options = { target: { kind: 'null', size: 1 << 30 }, queues: 2, depth: 64 };
    expect(binding.recoverDevice).toHaveBeenCalledWith(
      7,
      { ...options, affinity: [1] },
      expect.any(Function),
    );
    expect(device.path).toBe('/dev/ublkb7');
  });

  test.each([
    [undefined, 'ublk device 7 was created without recovery, so that no other server can serve it'],
    ['queue', 'there is no record of ublk device 7 (/run/ublk/7.json)'],
  ])('without a target needs a record (recovery: %s)', async (recovery, message) => {
    binding.deviceInfo.mockResolvedValue({ value: { id: 7, queues: 2, depth: 64, recovery } });
    await expect(recoverDevice(7)).rejects.toMatchObject({
      code: 'ERR_UBLK_INVALID_ARGUMENT',
      message,
      hint: expect.stringContaining('ublk') as string,
    });
    await expect(recoverDevice(7, { threads: 0 })).rejects.toMatchObject({
      message: expect.stringContaining('threads is 0') as string,
    });
    expect(binding.recoverDevice).not.toHaveBeenCalled();
  });

  test.each([
    [{ queues: 2 }, "recoverDevice() has no 'queues'"],
    [{ timeoutMs: 0 }, 'timeoutMs is 0; it must be a whole number from 1 to 600000'],
    [{ pin: true, affinity: [0] }, 'pin and affinity exclude each other'],
    [{ ringsApart: 1 }, 'ringsApart is 1; it must be true or false'],
    [{ threads: 0 }, 'threads is 0; it must be a whole number from 1 to 1024'],
  ])('refuses %o', async (options, message) => {
    await expect(recoverDevice(7, { target, ...options } as never)).rejects.toMatchObject({
      code: 'ERR_UBLK_INVALID_ARGUMENT',
      message,
    });
    expect(binding.recoverDevice).not.toHaveBeenCalled();
  });

  test('that is aborted leaves the device again', async () => {
    const controller = new AbortController();
    binding.recoverDevice.mockImplementation(async (_id, _options, onEnd) => {
      controller.abort('enough');
      made = fakeDevice(onEnd);
      return { value: made };
    });
    const recovered = recoverDevice(7, { target }, { signal: controller.signal });
    await expect(recovered).rejects.toBe('enough');
    expect(made.quiesce).toHaveBeenCalledOnce();
  });

  test('that is aborted gives the device out if it cannot be left', async () => {
    const failure = { code: 'ERR_UBLK_TIMEOUT', message: 'slow' };
    const controller = new AbortController();
    binding.recoverDevice.mockImplementation(async (_id, _options, onEnd) => {
      controller.abort('enough');
      const device = fakeDevice(onEnd);
      device.quiesce.mockResolvedValue({ failure });
      device.part.mockResolvedValue({ failure });
      return { value: device };
    });
    const device = await recoverDevice(7, { target }, { signal: controller.signal });
    expect(device.path).toBe('/dev/ublkb7');
    await device.close();
  });
});

describe('a device', () => {
  test('that is quiesced ends as such, and closing it again does nothing', async () => {
    const device = await recoverDevice(7, { target });
    await device.quiesce();
    expect(await device.closed).toBe('quiesced');
    await device.close();
    expect(made.close).not.toHaveBeenCalled();
  });

  test('tells its new size', async () => {
    await using device = await recoverDevice(7, { target });
    await device.resize('2GiB');
    expect(device.size).toBe(2 ** 31);
    await expect(device.resize('2GB')).rejects.toMatchObject({ code: 'ERR_UBLK_INVALID_ARGUMENT' });
  });
});

describe('the options of createDevice', () => {
  test('name the features of the device', () => {
    const features = { recovery: 'reissue', partScan: false, ioDescSize: 64 } as const;
    expect(toNativeOptions({ target, ...features, affinity: [0, 3] })).toMatchObject({
      ...features,
      affinity: [0, 3],
    });
  });

  test.each([
    [{ recovery: 'reisue' }, 'recovery is "reisue"'],
    [{ recovery: 'fail', unprivileged: true }, 'unprivileged and recovery exclude each other'],
    [{ pin: true, affinity: [0] }, 'pin and affinity exclude each other'],
    [{ affinity: [] }, 'affinity is an array; it must be a list of CPU numbers, like [0, 1]'],
    [{ affinity: [9000] }, 'affinity[0] is 9000; it must be a whole number from 0 to 8191'],
    [{ ioDescSize: 30 }, 'ioDescSize is 30; it must be a multiple of 8 from 24 to 256'],
    [{ partScan: 0 }, 'partScan is 0; it must be true or false'],
  ])('%o are refused', (options, message) => {
    expect(() => toNativeOptions({ target, ...options } as never)).toThrow(
      expect.objectContaining({ code: 'ERR_UBLK_INVALID_ARGUMENT', message }),
    );
  });
});

describe('what is done to any device', () => {
  test('is checked before the addon is asked', async () => {
    await expect(resizeDevice(0, '1GB')).rejects.toMatchObject({
      code: 'ERR_UBLK_INVALID_ARGUMENT',
    });
    await expect(quiesceDevice(-1)).rejects.toMatchObject({ code: 'ERR_UBLK_INVALID_ARGUMENT' });
    await expect(setDeviceAffinity(0, [])).rejects.toMatchObject({
      code: 'ERR_UBLK_INVALID_ARGUMENT',
    });
    expect(binding.resizeDevice).not.toHaveBeenCalled();
    expect(binding.setDeviceAffinity).not.toHaveBeenCalled();
  });

  test('is asked for in bytes and numbers', async () => {
    binding.resizeDevice.mockResolvedValue({ value: {} });
    binding.setDeviceAffinity.mockResolvedValue({ value: 2 });
    await resizeDevice(3, '1GiB');
    expect(binding.resizeDevice).toHaveBeenCalledWith(3, 1 << 30, false);
    await resizeDevice(3, '1GiB', { force: true });
    expect(binding.resizeDevice).toHaveBeenLastCalledWith(3, 1 << 30, true);
    expect(await setDeviceAffinity(3, [0, 1])).toBe(2);
  });
});
