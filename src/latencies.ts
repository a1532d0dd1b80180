import { wrong } from './errors.ts';
import { native, type NativeHistogram } from './native.ts';

/** The kinds of requests with latencies of their own. Writes include the appends of zoned devices. */
export type LatencyKind = 'read' | 'write' | 'flush' | 'discard' | 'writeZeroes';

/** How long requests of one kind took, in nanoseconds: the time that the server had each request. */
export interface LatencyHistogram {
  /** The number of requests. */
  readonly count: number;
  /** All latencies together. */
  readonly sum: number;
  /**
   * The number of requests below each bound and not below the bound before, without empty buckets. Four bounds
   * to each power of two, from a microsecond to 137 s: longer latencies count in the last bucket.
   */
  readonly buckets: readonly { readonly below: number; readonly count: number }[];
}

/** The latencies of a device, by the kind of request: see {@link DeviceStats.latencies}. */
export type DeviceLatencies = Readonly<Record<LatencyKind, LatencyHistogram>>;

/** @internal The histograms of the addon. */
export function toLatencies(all: readonly NativeHistogram[]): DeviceLatencies {
  shape ??= { kinds: native().latencyKinds(), bounds: native().latencyBounds() };
  const { kinds, bounds } = shape;
  const entries = kinds.map((kind, at) => [kind, toHistogram(all[at]!, bounds)] as const);
  return Object.fromEntries(entries) as DeviceLatencies;
}

function toHistogram(
  { buckets, sum }: NativeHistogram,
  bounds: readonly number[],
): LatencyHistogram {
  const filled = buckets.flatMap((count, at) =>
    count === 0 ? [] : [{ below: bounds[at]!, count }],
  );
  return { count: buckets.reduce((total, count) => total + count, 0), sum, buckets: filled };
}

let shape:
  { readonly kinds: readonly LatencyKind[]; readonly bounds: readonly number[] } | undefined;

/**
 * The latency in nanoseconds that `percent` of the requests stay below: the bound of a bucket, so at most a
 * quarter too large. 0 without requests.
 *
 * @example
 * const { latencies } = device.stats();
 * if (latencies) console.log(latencyPercentile(latencies.read, 99) / 1000, 'µs');
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for a percentage that is not from 0 to 100.
 */
export function latencyPercentile(histogram: LatencyHistogram, percent: number): number {
  const { count, buckets } = histogram;
  if (!(percent >= 0 && percent <= 100)) {
    throw wrong('percent', `is ${String(percent)}; it must be from 0 to 100`);
  }
  const wanted = (count * percent) / 100;
  let below = 0;
  for (const bucket of buckets) {
    below += bucket.count;
    if (below >= wanted) return bucket.below;
  }
  return 0;
}
