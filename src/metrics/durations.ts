import type { DeviceLatencies, LatencyHistogram } from '../latencies.ts';
import type { MetricSample } from './families.ts';

/** The bounds of the exposition in nanoseconds: the powers of two from 4 µs to 17 s. */
const BOUNDS = Array.from({ length: 23 }, (_, at) => 2 ** (at + 12));

/** The latencies of a device as samples of a histogram of Prometheus, in seconds. */
export function durations(latencies: DeviceLatencies): MetricSample[] {
  const all = Object.entries(latencies) as [string, LatencyHistogram][];
  return all.flatMap(([op, histogram]) => (histogram.count === 0 ? [] : samplesOf(op, histogram)));
}

function samplesOf(op: string, { count, sum, buckets }: LatencyHistogram): MetricSample[] {
  const upTo = (bound: number): number =>
    buckets.reduce((total, bucket) => (bucket.below <= bound ? total + bucket.count : total), 0);
  const bucket = (le: string, value: number): MetricSample => {
    return { labels: { op, le }, value, suffix: '_bucket' };
  };
  return [
    ...BOUNDS.map((bound) => bucket(String(bound / 1e9), upTo(bound))),
    bucket('+Inf', count),
    { labels: { op }, value: sum / 1e9, suffix: '_sum' },
    { labels: { op }, value: count, suffix: '_count' },
  ];
}
