import { metrics as api, type Meter } from '@opentelemetry/api';
import { expect, onTestFinished, test, vi } from 'vitest';

import { Device } from '../../../src/device.ts';
import { telemetry, type TelemetryMeter, type TelemetryResult } from '../../../src/index.ts';
import { DEFINITIONS } from '../../../src/metrics/families.ts';
import type { NativeEnd } from '../../../src/native.ts';
import { fakeDevice } from '../fake-device.ts';

function open(name?: string): Device {
  let end!: (end: NativeEnd) => void;
  const ended = new Promise<NativeEnd>((resolve) => (end = resolve));
  const device = new Device(fakeDevice(end), ended);
  device.named(name);
  onTestFinished(() => device.close());
  return device;
}

interface Instrument {
  readonly name: string;
  readonly unit: string;
}

/** A meter that asks as the meters of SDKs do, and what it was told. */
function meterOf() {
  const callbacks = new Set<(result: TelemetryResult) => void>();
  const create = (name: string, { unit }: { unit: string }): Instrument => ({ name, unit });
  const meter: TelemetryMeter = {
    createObservableCounter: create as never,
    createObservableGauge: create as never,
    addBatchObservableCallback: (callback) => void callbacks.add(callback),
    removeBatchObservableCallback: (callback) => void callbacks.delete(callback),
  };
  const collect = () => {
    const told: { name: string; unit: string; value: number; labels: object }[] = [];
    const observe = (instrument: object, value: number, labels: object): void => {
      told.push({ ...(instrument as Instrument), value, labels });
    };
    for (const callback of callbacks) callback({ observe });
    return told;
  };
  return { meter, collect };
}

test('a reader gets each metric of each device, with units', () => {
  const { meter, collect } = meterOf();
  const both = [open('data'), open()];
  const devices = vi.fn(() => both);
  const exported = telemetry(meter, { devices });
  const told = collect();
  expect(told.filter(({ name }) => name === 'ublk.reads_completed')).toEqual([
    {
      name: 'ublk.reads_completed',
      unit: '1',
      value: 3,
      labels: { device: 'ublkb7', name: 'data' },
    },
    { name: 'ublk.reads_completed', unit: '1', value: 3, labels: { device: 'ublkb7' } },
  ]);
  const units = new Map(told.map(({ name, unit }) => [name, unit]));
  expect(units.get('ublk.read_bytes')).toBe('By');
  expect(units.get('ublk.size_bytes')).toBe('By');
  expect(units.has('ublk.build_info')).toBe(true);
  expect([...units.keys()].every((name) => /^ublk\.[a-z_]+[a-z]$/.test(name))).toBe(true);
  exported[Symbol.dispose]();
  expect(collect()).toEqual([]);
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
