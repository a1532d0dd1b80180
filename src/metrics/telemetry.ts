import { openDevices } from '../channels.ts';
import { checkKeys } from '../check.ts';
import { invalid } from '../errors.ts';
import { packageVersion } from '../version.ts';
import { DEFINITIONS, toFamilies, type MetricDefinition } from './families.ts';
import { checkDevices, sourcesOf, type MetricsOptions } from './metrics.ts';

/** Takes values of instruments. */
export interface TelemetryResult {
  observe(instrument: object, value: number, attributes: Record<string, string>): void;
}

/** A meter of `@opentelemetry/api`, version 1.3 or later: the part that ublk uses. ublk never imports it. */
export interface TelemetryMeter {
  createObservableCounter(name: string, options: object): object;
  createObservableGauge(name: string, options: object): object;
  addBatchObservableCallback(
    callback: (result: TelemetryResult) => void,
    instruments: object[],
  ): void;
  removeBatchObservableCallback(
    callback: (result: TelemetryResult) => void,
    instruments: object[],
  ): void;
}

/**
 * Exports the counters, the state and the size of devices to OpenTelemetry: the metrics of {@link metrics}, with
 * names such as `ublk.read_bytes` and units, and `device` and `name` as attributes. ublk collects the values when
 * a reader of the SDK does, and does nothing in between. Histograms are left out: OpenTelemetry asks for no
 * histograms.
 *
 * @example
 * import { metrics } from '@opentelemetry/api';
 * using exported = telemetry(metrics.getMeter('my-disks'));
 *
 * @returns Collects no more when disposed of.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function telemetry(meter: TelemetryMeter, options: MetricsOptions = {}): Disposable {
  checkKeys(options, 'the options of telemetry()', ['devices']);
  const { devices = openDevices } = options;
  checkDevices(devices);
  checkMeter(meter);
  const definitions = DEFINITIONS.filter(({ type }) => type !== 'histogram');
  const instruments = new Map(definitions.map((one) => [one.name, instrumentOf(meter, one)]));
  const collect = (result: TelemetryResult): void => {
    for (const { name, samples } of toFamilies(sourcesOf(devices()), packageVersion())) {
      const instrument = instruments.get(name);
      if (instrument === undefined) continue;
      for (const { labels, value } of samples) result.observe(instrument, value, labels);
    }
  };
  const all = [...instruments.values()];
  meter.addBatchObservableCallback(collect, all);
  return { [Symbol.dispose]: () => meter.removeBatchObservableCallback(collect, all) };
}

/** Units of names as Prometheus has them, as OpenTelemetry writes units (UCUM). */
const UNITS: readonly (readonly [suffix: RegExp, unit: string])[] = [
  [/_seconds$/, 's'],
  [/_bytes$/, 'By'],
];

function instrumentOf(meter: TelemetryMeter, { name, help, type }: MetricDefinition): object {
  const words = name.replace(/^ublk_/, '').replace(/_total$/, '');
  const [suffix, unit] = UNITS.find(([ending]) => ending.test(words)) ?? [/$^/, '1'];
  const options = { description: help, unit };
  // Bytes are a part of the meaning, and seconds are not: `ublk.read_bytes`, `ublk.disk_read_time`.
  const named = `ublk.${unit === 's' ? words.replace(suffix, '') : words}`;
  return type === 'counter'
    ? meter.createObservableCounter(named, options)
    : meter.createObservableGauge(named, options);
}

function checkMeter(meter: unknown): void {
  const { createObservableCounter, addBatchObservableCallback } = Object(meter) as Record<
    string,
    unknown
  >;
  const isMeter =
    typeof createObservableCounter === 'function' &&
    typeof addBatchObservableCallback === 'function';
  if (isMeter) return;
  const hint = "give a meter of @opentelemetry/api: metrics.getMeter('my-disks')";
  throw invalid('meter is no meter of OpenTelemetry', hint, 'meter');
}
