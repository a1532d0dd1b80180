import { expect, test } from 'vitest';

import { parseThrottle, throttleText, toNativeThrottle } from '../../../src/throttle.ts';

test('limits reach the addon in requests and bytes per second, and the burst in seconds', () => {
  expect(
    toNativeThrottle({
      iops: 1000,
      read: { bytesPerSecond: '20MiB' },
      write: { iops: 5, bytesPerSecond: 1 },
      burst: 0,
    }),
  ).toEqual({
    all: { iops: 1000 },
    read: { bytes: 20 << 20 },
    write: { iops: 5, bytes: 1 },
    burst: 0,
  });
  expect(toNativeThrottle({})).toEqual({ all: {}, read: {}, write: {} });
});

test.each([
  [{ iops: 0 }, 'throttle.iops is 0'],
  [{ iops: 1.5 }, 'throttle.iops is 1.5'],
  [{ read: { iops: -1 } }, 'throttle.read.iops is -1'],
  [{ bytesPerSecond: 0 }, 'throttle.bytesPerSecond is 0'],
  [{ write: { bytesPerSecond: 'lots' } }, "throttle.write.bytesPerSecond 'lots'"],
  [{ burst: 3601 }, 'throttle.burst is 3601'],
  [{ burst: Number.NaN }, 'throttle.burst is NaN'],
  [{ bps: 1 }, "throttle has no 'bps'"],
  [{ read: { burst: 1 } }, "throttle.read has no 'burst'"],
])('%j is refused, and the error names the limit', (limits, message) => {
  expect(() => toNativeThrottle(limits as never)).toThrow(message);
});

test('limits are read from words, and shown as words', () => {
  const limits = { iops: 10, write: { bytesPerSecond: '20MiB' }, burst: 0.5 };
  const words = ['iops=10', 'write.bytesPerSecond=20MiB', 'burst=0.5'];
  expect(parseThrottle(words)).toEqual(limits);
  expect(throttleText(limits)).toBe(words.join(' '));
  expect(parseThrottle([])).toEqual({});
});

test.each([
  ['iops', "'iops' is no limit"],
  ['speed=1', "'speed=1' is no limit"],
  ['read.burst=1', "'read.burst=1' is no limit"],
  ['all.iops=1', "'all.iops=1' is no limit"],
  ['iops=fast', 'throttle.iops is NaN'],
  ['iops=', 'throttle.iops is 0'],
])('the word %s is refused', (word, message) => {
  expect(() => parseThrottle([word])).toThrow(message);
});
