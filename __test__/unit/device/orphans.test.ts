import { expect, test, vi } from 'vitest';

import type { DeviceInfo } from '../../../src/info.ts';
import { native } from '../../../src/native.ts';
import { deleteOrphan, hasNoServer } from '../../../src/orphans.ts';

vi.mock(import('../../../src/native.ts'), async (original) => ({
  ...(await original()),
  native: vi.fn<typeof native>(),
}));

const info: DeviceInfo = {
  id: 0,
  path: '/dev/ublkb0',
  state: 'live',
  queues: 1,
  depth: 1,
  maxIoBytes: 4096,
  ownerUid: 0,
  ownerGid: 0,
  features: [],
};
/** Above the largest process id of Linux. */
const NOBODY = 2 ** 22 + 1;

test.each<[Partial<DeviceInfo>, boolean]>([
  [{ serverPid: process.pid }, false],
  [{ serverPid: process.pid, recovery: 'queue' }, false],
  [{ serverPid: NOBODY, recovery: 'queue' }, true],
  [{ serverPid: NOBODY }, false],
  [{ serverPid: NOBODY, state: 'dead' }, true],
  [{ state: 'dead' }, true],
  [{ state: 'quiesced', recovery: 'queue' }, true],
])('whether a device has no server: %o', (facts, expected) => {
  expect(hasNoServer({ ...info, ...facts })).toBe(expected);
});

test('a number that another device has by now is not deleted', async () => {
  const deleteDevice = vi.fn<() => Promise<unknown>>(async () => ({ value: undefined }));
  const deviceInfo = vi.fn<() => Promise<unknown>>();
  vi.mocked(native).mockReturnValue({ deleteDevice, deviceInfo } as never);
  deviceInfo.mockResolvedValueOnce({ value: { ...info, serverPid: process.pid } });
  await expect(deleteOrphan(0)).rejects.toMatchObject({ code: 'ERR_UBLK_BUSY' });
  expect(deleteDevice).not.toHaveBeenCalled();
  deviceInfo.mockResolvedValueOnce({ value: { ...info, state: 'dead' } });
  await deleteOrphan(0);
  expect(deleteDevice).toHaveBeenCalledOnce();
});
