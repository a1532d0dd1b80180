import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { Device } from '../../../src/device.ts';
import { Service } from '../../../src/service/service.ts';
import { watchStalls, type Progress } from '../../../src/service/stalls.ts';
import { fakeDevice } from '../fake-device.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** A service of one device whose counters the test sets, and the events of three seconds of patience. */
function start(): { progress: Progress | undefined; said: unknown[]; end: () => void } {
  const service = new Service();
  const device = new Device(
    fakeDevice(() => {}),
    new Promise(() => {}),
  );
  vi.spyOn(service, 'devices', 'get').mockReturnValue(new Map([['data', device]]));
  const state = {
    progress: undefined as Progress | undefined,
    said: [] as unknown[],
    end: () => {},
  };
  const watch = watchStalls(service, 3, () => state.progress);
  service.on('stall', (name, _, { inFlight, seconds }) => {
    state.said.push(`${name}: ${inFlight} wait for ${seconds} s`);
  });
  service.on('resume', (name) => void state.said.push(`${name} goes on`));
  state.end = () => watch[Symbol.dispose]();
  return state;
}

test('a device on which nothing completes is named once, and again when it goes on', () => {
  const state = start();
  state.progress = { inFlight: 2, completed: 10 };
  vi.advanceTimersByTime(3000);
  expect(state.said).toEqual([]);
  vi.advanceTimersByTime(20_000);
  expect(state.said).toEqual(['data: 2 wait for 3 s']);
  state.progress = { inFlight: 2, completed: 11 };
  vi.advanceTimersByTime(1000);
  expect(state.said).toEqual(['data: 2 wait for 3 s', 'data goes on']);
  vi.advanceTimersByTime(4000);
  expect(state.said).toHaveLength(3);
  state.end();
});

test('a device that completes, has nothing to do, or is about to go, does not stall', () => {
  const state = start();
  for (let second = 0; second < 10; second += 1) {
    state.progress = { inFlight: 5, completed: second };
    vi.advanceTimersByTime(1000);
  }
  state.progress = { inFlight: 0, completed: 10 };
  vi.advanceTimersByTime(10_000);
  // The wait of a request begins with the request.
  state.progress = { inFlight: 1, completed: 10 };
  vi.advanceTimersByTime(2000);
  state.progress = undefined;
  vi.advanceTimersByTime(10_000);
  expect(state.said).toEqual([]);
  state.end();
  state.progress = { inFlight: 1, completed: 10 };
  vi.advanceTimersByTime(10_000);
  expect(state.said).toEqual([]);
});
