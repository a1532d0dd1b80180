import { expect, test, vi } from 'vitest';

import type { UblkError } from '../../../src/errors.ts';
import { checkMerge, Merges } from '../../../src/merges.ts';
import { native, type FrozenLayers, type NativeDevice } from '../../../src/native.ts';
import { fakeDevice } from '../fake-device.ts';

vi.mock(import('../../../src/native.ts'), async (original) => ({
  ...(await original()),
  native: vi.fn<typeof native>(),
}));

const MERGED = { kept: [], removed: ['/disks/vm.layer.1'] };

/** A device whose frozen layers are these, one after another look. */
function layered(...looks: FrozenLayers[]) {
  vi.mocked(native).mockReturnValue({
    overlayTask: () => ({ progress: () => [], cancel: () => {} }),
  } as never);
  const device = fakeDevice(() => {});
  for (const value of looks) device.frozen.mockResolvedValueOnce({ value });
  const warnings: UblkError[] = [];
  const merges = new Merges(device as NativeDevice, (warning) => void warnings.push(warning));
  return { device, merges, warnings };
}

const frozen = (layers: number, allocated: number, stored: number) => ({
  layers,
  allocated,
  stored,
});

test.each([
  ['a lonely layer', frozen(1, 100, 1), 0],
  ['layers within both limits', frozen(4, 100, 50), 0],
  ['too many layers', frozen(5, 100, 100), 1],
  ['layers that waste space', frozen(2, 100, 49), 1],
])('a device with limits merges, or not, at its start: %s', async (_what, found, calls) => {
  const { device, merges, warnings } = layered(found, frozen(1, 50, 50));
  device.flatten.mockResolvedValue({ value: MERGED });
  merges.keep({ depth: 4, garbage: 0.5, bytesPerSecond: '1MiB', prune: true });
  await vi.waitFor(() => expect(device.frozen).toHaveBeenCalledTimes(1 + calls));
  expect(device.flatten).toHaveBeenCalledTimes(calls);
  for (const call of device.flatten.mock.calls) expect(call.slice(0, 2)).toEqual([true, 2 ** 20]);
  expect(warnings).toEqual([]);
});

test('layers past the limits that cannot be merged are left, and looked at after the next snapshot', async () => {
  const { device, merges } = layered(frozen(9, 10, 10), frozen(9, 10, 10));
  device.flatten.mockResolvedValue({ value: { kept: [], removed: [] } });
  merges.keep({ depth: 4 });
  await vi.waitFor(() => expect(device.flatten).toHaveBeenCalledTimes(1));
  // The end of the look.
  await new Promise((resolve) => setImmediate(resolve));
  merges.look();
  await vi.waitFor(() => expect(device.flatten).toHaveBeenCalledTimes(2));
});

test('a merge that fails is a warning, and the end of the service is none', async () => {
  const { device, merges, warnings } = layered(frozen(9, 10, 10), frozen(9, 10, 10));
  const failure = { code: 'ERR_UBLK_RESOURCES', message: 'no space', hint: 'make space' };
  device.flatten.mockResolvedValueOnce({ failure } as never);
  merges.keep({ depth: 4 });
  await vi.waitFor(() => expect(warnings).toHaveLength(1));
  expect(warnings[0]).toMatchObject({
    code: 'ERR_UBLK_RESOURCES',
    message: 'the layers of the device could not be merged: no space',
    hint: 'make space',
  });
  const cut = { code: 'ERR_UBLK_BAD_BACKEND', message: 'cancelled' };
  let fail = (): void => {};
  device.flatten.mockReturnValueOnce(
    new Promise((resolve) => (fail = () => resolve({ failure: cut } as never))),
  );
  await new Promise((resolve) => setImmediate(resolve));
  merges.look();
  await vi.waitFor(() => expect(device.flatten).toHaveBeenCalledTimes(2));
  let ended = false;
  const end = merges.end().then(() => (ended = true));
  await new Promise((resolve) => setImmediate(resolve));
  expect(ended).toBe(false);
  fail();
  await end;
  expect(warnings).toHaveLength(1);
});

test.each([
  [{ depth: 0 }, /merge.depth/],
  [{ depth: 255 }, /merge.depth/],
  [{ garbage: 1.5 }, /merge.garbage/],
  [{ garbage: '1' as never }, /merge.garbage/],
  [{ bytesPerSecond: 'fast' }, /merge.bytesPerSecond/],
  [{ prune: 1 as never }, /merge.prune/],
  [{ deep: 1 } as never, /merge has no 'deep'/],
])('the limits %o are refused', (options, message) => {
  expect(() => checkMerge(options)).toThrow(message);
});

test('a merge whose caller fails to hear of the progress ends, and rejects with the failure', async () => {
  const { device, merges } = layered();
  const cancelled = new Promise<void>((resolve) => {
    const task = { progress: () => [1, 2], cancel: resolve };
    vi.mocked(native).mockReturnValue({ overlayTask: () => task } as never);
  });
  device.flatten.mockImplementationOnce(async () => {
    await cancelled;
    return { failure: { code: 'ERR_UBLK_CLOSED', message: 'the merge was cancelled' } };
  });
  const failure = new Error('nobody reads this');
  const onProgress = () => {
    throw failure;
  };
  await expect(merges.flatten({ onProgress })).rejects.toBe(failure);
});
