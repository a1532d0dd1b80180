import { expect, test } from 'vitest';

import type { DeviceInfo } from '../../src/info.ts';
import { hasNoServer } from '../../src/orphans.ts';

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
