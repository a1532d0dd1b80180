import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { Device } from '../../../src/device.ts';
import { deviceUsers } from '../../../src/devices.ts';
import type { NativeEnd } from '../../../src/native.ts';
import { fakeDevice } from '../fake-device.ts';

vi.mock(import('../../../src/devices.ts'), async (original) => ({
  ...(await original()),
  deviceUsers: vi.fn<typeof deviceUsers>(),
}));

beforeEach(() => void vi.useFakeTimers());
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
