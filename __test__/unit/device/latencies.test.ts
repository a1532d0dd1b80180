import { expect, onTestFinished, test, vi } from 'vitest';

import { Device } from '../../../src/device.ts';
import { latencyPercentile, type LatencyHistogram } from '../../../src/latencies.ts';
import { toFamilies } from '../../../src/metrics/families.ts';
import { metrics } from '../../../src/metrics/metrics.ts';
import { sourcesOf } from '../../../src/metrics/metrics.ts';
import { toText } from '../../../src/metrics/text.ts';
import type { NativeEnd } from '../../../src/native.ts';
import { Registry } from '../../prom-client.ts';
import { fakeDevice } from '../fake-device.ts';

vi.mock(import('../../../src/native.ts'), async (original) => ({
  ...(await original()),
  native: () =>
    ({
      latencyKinds: () => ['read', 'write', 'flush', 'discard', 'writeZeroes'],
      latencyBounds: () => [1280, 4096, 5120, 8192],
    }) as never,
}));

/** A device that has measured ten reads and a flush. */
function measured(): Device {
  let end!: (end: NativeEnd) => void;
  const ended = new Promise<NativeEnd>((resolve) => (end = resolve));
  const none = { buckets: [0, 0, 0, 0], sum: 0 };
  const read = { buckets: [8, 0, 1, 1], sum: 22_000 };
  const flush = { buckets: [0, 1, 0, 0], sum: 4000 };
  const fake = { ...fakeDevice(end), latencies: () => [read, none, flush, none, none] };
  const device = new Device(fake, ended);
  onTestFinished(() => device.close());
  return device;
}

test('latencies are counted by the kind of request, without empty buckets', () => {
  const { latencies } = measured().stats();
  expect(latencies?.read).toEqual({
    count: 10,
    sum: 22_000,
    buckets: [
      { below: 1280, count: 8 },
      { below: 5120, count: 1 },
      { below: 8192, count: 1 },
    ],
  });
  expect(latencies?.write).toEqual({ count: 0, sum: 0, buckets: [] });
});

test('a percentile is the bound that so many requests stay below', () => {
  const { read, write } = measured().stats().latencies!;
  const of = (histogram: LatencyHistogram) =>
    [0, 50, 80, 81, 90, 91, 100].map((percent) => latencyPercentile(histogram, percent));
  expect(of(read)).toEqual([1280, 1280, 1280, 5120, 5120, 8192, 8192]);
  expect(of(write)).toEqual([0, 0, 0, 0, 0, 0, 0]);
  for (const percent of [-1, 101, NaN]) {
    expect(() => latencyPercentile(read, percent)).toThrow('it must be from 0 to 100');
  }
});

test('Prometheus gets a histogram of each kind of request that there was', () => {
  const text = toText(
    toFamilies(
      sourcesOf([measured()], () => undefined),
      '1',
    ),
  );
  const lines = text.split('\n').filter((line) => line.startsWith('ublk_request_duration'));
  const device = 'device="ublkb7"';
  expect(lines).toHaveLength(2 * 26);
  for (const line of [
    `ublk_request_duration_seconds_bucket{${device},op="read",le="0.000004096"} 8`,
    `ublk_request_duration_seconds_bucket{${device},op="read",le="0.000008192"} 10`,
    `ublk_request_duration_seconds_bucket{${device},op="read",le="17.179869184"} 10`,
    `ublk_request_duration_seconds_bucket{${device},op="read",le="+Inf"} 10`,
    `ublk_request_duration_seconds_sum{${device},op="read"} 0.000022`,
    `ublk_request_duration_seconds_count{${device},op="flush"} 1`,
  ]) {
    expect(lines).toContain(line);
  }
  expect(text).toContain('# TYPE ublk_request_duration_seconds histogram');
});

test('a registry of prom-client prints the same histogram', async () => {
  const registry = new Registry();
  const device = measured();
  using own = metrics(registry, { devices: () => [device] });
  const lines = (text: string) =>
    text.split('\n').filter((line) => line.startsWith('ublk_request_duration'));
  expect(lines(await registry.metrics())).toEqual(lines(own.text()));
});
