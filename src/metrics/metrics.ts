import { openDevices } from '../channels.ts';
import { checkKeys } from '../check.ts';
import type { Device } from '../device.ts';
import { readDiskStats, type DiskStats } from '../disk-stat.ts';
import { invalid } from '../errors.ts';
import { packageVersion } from '../version.ts';
import { toFamilies, type MetricFamily, type MetricSource } from './families.ts';
import { register, type MetricsRegistry } from './registry.ts';
import { CONTENT_TYPE, toText } from './text.ts';

/** Options of {@link metrics}. */
export interface MetricsOptions {
  /**
   * The devices of each scrape.
   * @default all open devices of this thread
   */
  readonly devices?: (() => Iterable<Device>) | undefined;
}

/** The metrics of devices, made by {@link metrics}. Disposing removes the metrics from the registry. */
export interface Metrics extends Disposable {
  /** The media type of {@link text}: the text format of Prometheus, version 0.0.4. */
  readonly contentType: string;
  /** All metrics now, as plain data. */
  families(): MetricFamily[];
  /** All metrics now, for the answer to a scrape. */
  text(): string;
}

/**
 * Exports the counters, the state and the size of devices to Prometheus: in a registry of prom-client,
 * or as text. ublk collects the values at each scrape and does nothing in between. The guide on metrics
 * lists all names.
 *
 * @example
 * import { register } from 'prom-client';
 * metrics(register);
 * console.log(await register.metrics());
 *
 * @param registry Gets a metric for each name; absent: no registry.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`; the error of the registry where a name is taken,
 * after removing the names that were registered before.
 */
export function metrics(registry?: MetricsRegistry, options: MetricsOptions = {}): Metrics {
  checkKeys(options, 'the options of metrics()', ['devices']);
  const { devices = openDevices } = options;
  checkDevices(devices);
  const families = (): MetricFamily[] => toFamilies(sourcesOf(devices()), packageVersion());
  const registered = registry === undefined ? undefined : register(registry, families);
  return {
    contentType: CONTENT_TYPE,
    families,
    text: () => toText(families()),
    [Symbol.dispose]: () => registered?.[Symbol.dispose](),
  };
}

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for a list in place of a function. */
export function checkDevices(devices: unknown): void {
  if (typeof devices === 'function') return;
  const hint = 'give devices: () => [device]';
  throw invalid('devices must be a function that returns devices', hint, 'devices');
}

/** The sources of metrics of devices in this process. */
export function sourcesOf(
  devices: Iterable<Device>,
  read: DiskStats = readDiskStats(),
): MetricSource[] {
  return [...devices].map((device) => {
    const info = device.toJSON();
    const { total: counters, stalled, latencies } = device.stats();
    return { info, name: device.name, counters, stalled, latencies, disk: read(info.id) };
  });
}
