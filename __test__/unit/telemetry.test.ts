import { metrics as api, ValueType, type Meter } from '@opentelemetry/api';
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics';
import { expect, onTestFinished, test, vi } from 'vitest';

import { Device } from '../../src/device.ts';
import { telemetry } from '../../src/index.ts';
import { DEFINITIONS } from '../../src/metrics/families.ts';
import type { NativeEnd } from '../../src/native.ts';
import { fakeDevice } from './fake-device.ts';

function open(name?: string): Device {
  let end!: (end: NativeEnd) => void;
  const ended = new Promise<NativeEnd>((resolve) => (end = resolve));
  const device = new Device(fakeDevice(end), ended);
  device.named(name);
  onTestFinished(() => device.close());
  return device;
}

/** A meter of the SDK, and what its reader has collected. */
function sdk() {
  const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 });
  const provider = new MeterProvider({ readers: [reader] });
  onTestFinished(() => provider.shutdown());
  const collect = async () => {
    exporter.reset();
    await provider.forceFlush();
    return exporter.getMetrics().flatMap(({ scopeMetrics }) => scopeMetrics[0]?.metrics ?? []);
  };
  return { meter: provider.getMeter('test'), collect };
}

test('a reader of the SDK gets each metric of each device, with units', async () => {
  const { meter, collect } = sdk();
  const both = [open('data'), open()];
  const devices = vi.fn(() => both);
  const exported = telemetry(meter, { devices });
  const metrics = await collect();
  const reads = metrics.find(({ descriptor }) => descriptor.name === 'ublk.reads_completed');
  expect(reads?.descriptor).toMatchObject({ unit: '1', valueType: ValueType.DOUBLE });
  expect(reads?.dataPoints.map(({ attributes, value }) => [attributes, value])).toEqual([
    [{ device: 'ublkb7', name: 'data' }, 3],
    [{ device: 'ublkb7' }, 3],
  ]);
  const units = new Map(metrics.map(({ descriptor }) => [descriptor.name, descriptor.unit]));
  expect(units.get('ublk.read_bytes')).toBe('By');
  expect(units.get('ublk.size_bytes')).toBe('By');
  expect(units.has('ublk.build_info')).toBe(true);
  const names = [...units.keys()];
  expect(names.every((name) => /^ublk\.[a-z_]+[a-z]$/.test(name))).toBe(true);
  expect(new Set(names).size).toBe(names.length);
  exported[Symbol.dispose]();
  await collect();
  expect(devices).toHaveBeenCalledTimes(1);
});

test('every metric without a histogram is an instrument, named once', () => {
  const names: string[] = [];
  const create = (name: string) => names.push(name);
  const meter = {
    createObservableCounter: create,
    createObservableGauge: create,
    addBatchObservableCallback: () => {},
    removeBatchObservableCallback: () => {},
  };
  telemetry(meter as unknown as Meter);
  expect(new Set(names).size).toBe(DEFINITIONS.length - 1);
  expect(names).toContain('ublk.disk_read_time');
});

test('works with the meter of a program without an SDK', () => {
  using exported = telemetry(api.getMeter('nobody'));
  expect(exported).toBeDefined();
});

test.each([
  [() => telemetry({} as never), 'meter is no meter of OpenTelemetry'],
  [() => telemetry(undefined as never), 'meter is no meter of OpenTelemetry'],
  [() => telemetry(api.getMeter('x'), { devices: [] as never }), 'devices must be a function'],
  [() => telemetry(api.getMeter('x'), { device: 1 } as never), "telemetry() has no 'device'"],
])('%s is refused', (call, message) => {
  expect(call).toThrow(
    expect.objectContaining({
      code: 'ERR_UBLK_INVALID_ARGUMENT',
      message: expect.stringContaining(message) as string,
    }),
  );
});
