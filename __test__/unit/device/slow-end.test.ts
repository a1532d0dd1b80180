import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { Device } from '../../../src/device.ts';
import { deviceUsers } from '../../../src/devices.ts';
import type { NativeEnd } from '../../../src/native.ts';
import { simulate } from '../../../src/testing/index.ts';
import { fakeDevice } from '../fake-device.ts';

vi.mock(import('../../../src/devices.ts'), async (original) => ({
  ...(await original()),
  deviceUsers: vi.fn<typeof deviceUsers>(),
}));

beforeEach(() => {
  vi.mocked(deviceUsers).mockReset();
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
});
afterEach(() => void vi.useRealTimers());

test.each([
  [2000, undefined, []],
  [9000, undefined, ['/dev/ublkb7 has not ended after 3 s; its users: mounted on /mnt']],
  // The number of an export is no number of a block device: the users would be those of another disk.
  [9000, 'nbd://127.0.0.1/', []],
])('what takes %i ms to end says once whom it waits for (%s)', async (ms, place, expected) => {
  vi.mocked(deviceUsers).mockResolvedValue({ found: [], complete: true, text: 'mounted on /mnt' });
  let onEnd!: (end: NativeEnd) => void;
  const native = fakeDevice(() => {});
  const device = new Device(native, new Promise((resolve) => (onEnd = resolve)), place);
  const warned: string[] = [];
  device.on('warning', ({ message }) => void warned.push(message));
  const closed = device.close();
  await vi.advanceTimersByTimeAsync(ms);
  onEnd({ reason: 'closed' });
  await closed;
  await vi.advanceTimersByTimeAsync(9000);
  expect(warned).toEqual(expected);
});

test('a simulated disk that is slow to end has no users, whoever uses the block device of its number', async () => {
  let answer!: () => void;
  const answered = new Promise<void>((resolve) => (answer = resolve));
  await using disk = await simulate({ size: 8192, read: () => answered, write: () => {} });
  const read = disk.read(0, 4096);
  const closed = disk.device.close();
  vi.advanceTimersByTime(9000);
  answer();
  await Promise.allSettled([read, closed]);
  expect(deviceUsers).not.toHaveBeenCalled();
});
