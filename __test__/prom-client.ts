/** A registry of prom-client, as far as the tests use it. */
interface PromRegistry {
  metrics(): Promise<string>;
  getMetricsAsJSON(): Promise<object[]>;
  getMetricsAsArray(): { readonly name: string }[];
  registerMetric(metric: never): void;
  removeSingleMetric(name: string): void;
  resetMetrics(): void;
}

// Imported by a name that the compiler does not know, so that a checkout whose node_modules is older than
// package.json compiles. The snippet of docs/guides/watching.md is compiled against the real types.
const name: string = 'prom-client';

export const { collectDefaultMetrics, Registry } = (await import(name)) as {
  collectDefaultMetrics(options: { register: PromRegistry }): void;
  Registry: new () => PromRegistry;
};
