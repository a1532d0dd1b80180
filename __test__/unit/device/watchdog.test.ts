import { afterEach, beforeEach, expect, onTestFinished, test, vi } from 'vitest';

import { Device } from '../../../src/device.ts';
import type { Stalled } from '../../../src/index.ts';
import type { NativeEnd, NativeStall } from '../../../src/native.ts';
import { toNativeOptions } from '../../../src/options.ts';
import { targets } from '../../../src/targets/index.ts';
import { describeStall } from '../../../src/watchdog.ts';
import { fakeDevice } from '../fake-device.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const READ: NativeStall = {
  ageMs: 31_250.7,
  waitsFor: 'read',
  file: '/srv/disk.img',
  queue: 1,
  op: 0,
  offset: 8192,
  length: 4096,
};

/** A device whose addon reports a stall when the test says so, and the end of the device. */
function guarded(action?: 'quiesce') {
  let end!: (end: NativeEnd) => void;
  const native = fakeDevice((ended) => end(ended));
  const device = new Device(native, new Promise((resolve) => (end = resolve)));
  device.guard({ afterMs: 400, action });
  const stall = (): void => {
    native.stalls.mockReturnValueOnce([READ]);
    vi.advanceTimersByTime(100);
  };
  return { device, native, stall };
}

test.each([
  [
    READ,
    'read of 4096 bytes at 8192 has not ended for 31.3 s, and waits for a read of /srv/disk.img',
  ],
  [
    { ...READ, waitsFor: 'handler', file: undefined as never },
    'read of 4096 bytes at 8192 has not ended for 31.3 s, and waits for the handler',
  ],
  [
    { ageMs: 1000, waitsFor: 'sync', queue: 0, op: 2, offset: 0, length: 0 },
    'flush has not ended for 1.0 s, and waits for a sync of the backing store',
  ],
  [{ ageMs: 500, waitsFor: 'thread', thread: 'ublk7q0' }, 'ublk7q0 has not answered for 0.5 s'],
])('a stall is described with all that is known: %o', (stall, words) => {
  expect(describeStall('/dev/ublkb7', stall).message).toBe(`/dev/ublkb7: ${words}`);
});

test('a stall is an event and counted; nothing is looked at after the end', async () => {
  const { device, native, stall } = guarded();
  const heard: Stalled[] = [];
  device.on('stalled', (one) => void heard.push(one));
  vi.advanceTimersByTime(300);
  expect([native.stalls.mock.calls.length, heard.length]).toEqual([3, 0]);
  stall();
  expect(heard).toEqual([
    expect.objectContaining({ ...READ, ageMs: 31_250, op: 'read', waitsFor: 'read' }),
  ]);
  expect(device.stats().stalled).toBe(1);
  await device.close();
  native.stalls.mockClear();
  vi.advanceTimersByTime(1000);
  expect(native.stalls).not.toHaveBeenCalled();
});

test('without a listener Node.js prints the stall', () => {
  const printed = vi.spyOn(process, 'emitWarning').mockReturnValue();
  onTestFinished(() => printed.mockRestore());
  guarded().stall();
  expect(printed).toHaveBeenCalledOnce();
  expect(String(printed.mock.calls[0])).toContain('/srv/disk.img');
});

test('the action quiesce leaves the device at the first stall', async () => {
  const { device, native, stall } = guarded('quiesce');
  device.on('stalled', () => {});
  stall();
  stall();
  expect(await device.closed).toBe('quiesced');
  expect(native.quiesce).toHaveBeenCalledOnce();
});

test.each([
  [
    { afterMs: 50 },
    undefined,
    'watchdog.afterMs is 50; it must be a whole number from 100 to 3600000',
  ],
  [{ after: 50 }, undefined, "watchdog has no 'after'"],
  [{ action: 'fail' }, undefined, 'watchdog.action is "fail"'],
  [{ action: 'quiesce' }, undefined, "watchdog.action is 'quiesce', which needs recovery"],
  [{ action: 'quiesce' }, 'reissue', 'is taken'],
] as const)('the options %o with recovery %s', (watchdog, recovery, message) => {
  const options = { target: targets.null({ size: '1MiB' }), watchdog: watchdog as never, recovery };
  const check = (): string => {
    try {
      toNativeOptions(options);
      return 'is taken';
    } catch (error) {
      return (error as Error).message;
    }
  };
  expect(check()).toContain(message);
});
