import type { Counters, DeviceStats } from './info.ts';
import { toLatencies } from './latencies.ts';
import type { NativeDevice } from './native.ts';

/** The counters of a device so far, with the number of stalls that the watchdog has reported. */
export function readStats(
  native: Pick<NativeDevice, 'stats' | 'latencies'>,
  stalled: number,
): DeviceStats {
  const queues = native.stats();
  const measured = native.latencies();
  const latencies = measured && { latencies: toLatencies(measured) };
  return { queues, total: sum(queues), stalled, ...latencies };
}

function sum(queues: readonly Counters[]): Counters {
  const total: Record<string, number> = {};
  for (const queue of queues) {
    for (const [name, count] of Object.entries(queue)) total[name] = (total[name] ?? 0) + count;
  }
  return total as unknown as Counters;
}
