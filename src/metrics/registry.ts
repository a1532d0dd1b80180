import { invalid } from '../errors.ts';
import { DEFINITIONS, type MetricFamily, type MetricSample } from './families.ts';

/**
 * A registry of prom-client, version 14 or later: the part that ublk uses. ublk never imports
 * prom-client.
 */
export interface MetricsRegistry {
  registerMetric(metric: never): void;
  removeSingleMetric(name: string): void;
}

/** A metric, as a registry of prom-client reads the metric at a scrape. */
interface RegisteredMetric {
  readonly name: string;
  readonly help: string;
  readonly type: MetricFamily['type'];
  /** How a cluster of Node.js joins the values of the workers. */
  readonly aggregator: 'sum';
  get(): Promise<object>;
  /** Does nothing: the values are those of the devices. */
  reset(): void;
}

/**
 * Registers a metric for each name.
 *
 * @param collect All metrics now; called once for each scrape.
 * @returns Removes the metrics from the registry when disposed of.
 */
export function register(registry: MetricsRegistry, collect: () => MetricFamily[]): Disposable {
  checkRegistry(registry);
  const scrape = oncePerTurn(collect);
  const names: string[] = [];
  const remove = (): void => names.splice(0).forEach((name) => registry.removeSingleMetric(name));
  try {
    for (const { name, help, type } of DEFINITIONS) {
      const get = async (): Promise<object> => {
        const samples = scrape().get(name)?.samples ?? [];
        const values = samples.map((sample) => named(name, sample));
        return { name, help, type, aggregator: 'sum', values };
      };
      const metric: RegisteredMetric = {
        name,
        help,
        type,
        aggregator: 'sum',
        get,
        reset: () => {},
      };
      registry.registerMetric(metric as never);
      names.push(name);
    }
  } catch (error) {
    remove();
    throw error;
  }
  return { [Symbol.dispose]: remove };
}

/** A sample as prom-client names the samples of histograms. */
function named(name: string, sample: MetricSample): object {
  const { labels, value, suffix } = sample;
  return suffix === undefined ? sample : { labels, value, metricName: `${name}${suffix}` };
}

/** A registry asks all metrics in one turn of the event loop; the devices are asked once. */
function oncePerTurn(collect: () => MetricFamily[]): () => ReadonlyMap<string, MetricFamily> {
  let last: ReadonlyMap<string, MetricFamily> | undefined;
  return () => {
    if (last !== undefined) return last;
    setImmediate(() => (last = undefined));
    last = new Map(collect().map((family) => [family.name, family]));
    return last;
  };
}

function checkRegistry(registry: unknown): void {
  const { registerMetric, removeSingleMetric } = Object(registry) as Record<string, unknown>;
  if (typeof registerMetric === 'function' && typeof removeSingleMetric === 'function') return;
  const hint = "give the register of prom-client: import { register } from 'prom-client'";
  throw invalid('registry is no registry of prom-client', hint, 'registry');
}
