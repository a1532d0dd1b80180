import type { DiskStat } from '../disk-stat.ts';
import type { Counters, DeviceInfo, DeviceState } from '../info.ts';
import type { DeviceLatencies } from '../latencies.ts';
import { durations } from './durations.ts';

/** A value of a metric, with its labels. */
export interface MetricSample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
  /** What the name of a histogram's sample has at its end. */
  readonly suffix?: '_bucket' | '_sum' | '_count';
}

/** A metric of all devices. */
export interface MetricFamily {
  /** For example `ublk_read_bytes_total`. */
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly samples: readonly MetricSample[];
}

/** What is known of a device at the time of a scrape. */
export interface MetricSource {
  readonly info: DeviceInfo;
  /** The name that the device was given. */
  readonly name?: string | undefined;
  /** The sums of the server's counters; absent where the server cannot be asked. */
  readonly counters?: Counters | undefined;
  /** How many stalls the watchdog of the device has reported; absent where the server cannot be asked. */
  readonly stalled?: number | undefined;
  /** Of a device with the option `latencies`. */
  readonly latencies?: DeviceLatencies | undefined;
  /** The kernel's counters; absent for a device that is about to go. */
  readonly disk?: DiskStat | undefined;
}

/** The origin of a metric's values. */
export type MetricOrigin = 'server' | 'kernel' | 'program';

/** The definition of a metric. */
export interface MetricDefinition extends Omit<MetricFamily, 'samples'> {
  readonly origin: MetricOrigin;
  /** Labels besides `device` and `name`. */
  readonly labels?: readonly string[];
  /** The values of one device; absent for a metric without a device. */
  readonly of?: (source: MetricSource) => readonly MetricSample[] | number | undefined;
}

type Named = readonly [name: string, help: string];

/** The counters of a server. The compiler checks that each field of {@link Counters} has a metric. */
const SERVER: Record<keyof Counters, Named> = {
  reads: ['reads_completed_total', 'Reads answered by the server.'],
  readBytes: ['read_bytes_total', 'Bytes of the reads answered by the server.'],
  writes: ['writes_completed_total', 'Writes answered by the server.'],
  writeBytes: ['written_bytes_total', 'Bytes of the writes answered by the server.'],
  flushes: ['flush_requests_total', 'Flushes answered by the server.'],
  discards: ['discards_completed_total', 'Discards answered by the server.'],
  writeZeroes: ['write_zeroes_completed_total', 'Requests to write zeros answered by the server.'],
  errors: ['request_errors_total', 'Failed requests.'],
  zeroCopyBytes: [
    'zero_copy_bytes_total',
    "Bytes moved between the client's pages and the target without a copy.",
  ],
  copiedBytes: [
    'copied_bytes_total',
    "Bytes copied by the kernel between the client's pages and a buffer of the server.",
  ],
  shortResults: [
    'short_results_total',
    'Short results of the backing store, each continued for the rest.',
  ],
  zeroFilledBytes: [
    'zero_filled_bytes_total',
    'Bytes read as zeros beyond the end of the backing file.',
  ],
  registrations: ['buffer_registrations_total', 'Buffers registered by the server.'],
  fallbacks: [
    'buffer_fallbacks_total',
    'Requests whose buffer the server registered because the kernel could not.',
  ],
  enters: ['io_uring_enters_total', 'Calls of io_uring_enter by the reactors.'],
};

/** The kernel's counters, named as node_exporter names them with the prefix `node_`; times in seconds. */
const KERNEL: Record<Exclude<keyof DiskStat, 'inFlight'>, Named> = {
  reads: ['disk_reads_completed_total', 'Reads completed, counted by the kernel.'],
  readBytes: ['disk_read_bytes_total', 'Bytes read, counted by the kernel.'],
  readMs: ['disk_read_time_seconds_total', 'Time of all reads together.'],
  writes: ['disk_writes_completed_total', 'Writes completed, counted by the kernel.'],
  writeBytes: ['disk_written_bytes_total', 'Bytes written, counted by the kernel.'],
  writeMs: ['disk_write_time_seconds_total', 'Time of all writes together.'],
  discards: ['disk_discards_completed_total', 'Discards completed, counted by the kernel.'],
  discardBytes: ['disk_discarded_bytes_total', 'Bytes discarded, counted by the kernel.'],
  discardMs: ['disk_discard_time_seconds_total', 'Time of all discards together.'],
  flushes: ['disk_flush_requests_total', 'Flushes completed, counted by the kernel.'],
  flushMs: ['disk_flush_requests_time_seconds_total', 'Time of all flushes together.'],
  busyMs: ['disk_io_time_seconds_total', 'Time with at least one request in flight.'],
};

const STATES: readonly DeviceState[] = ['dead', 'live', 'quiesced', 'fail-io'];

/** All metrics, in the order of the exposition. */
export const DEFINITIONS: readonly MetricDefinition[] = [
  {
    ...gauge('build_info', 'The version of ublk that exports the metrics; always 1.', 'program'),
    labels: ['version'],
  },
  {
    ...gauge('device_state', 'State of the device: 1 for the present state, 0 for others.'),
    labels: ['state'],
    of: ({ info }) =>
      STATES.map((state) => ({ labels: { state }, value: info.state === state ? 1 : 0 })),
  },
  { ...gauge('size_bytes', 'Size of the device.'), of: ({ info }) => info.size },
  { ...gauge('queues', 'Hardware queues of the device.'), of: ({ info }) => info.queues },
  {
    ...gauge('queue_depth', 'Largest number of requests of one queue in flight at once.'),
    of: ({ info }) => info.depth,
  },
  {
    ...gauge('disk_io_now', 'Requests in flight, counted by the kernel.'),
    of: ({ disk }) => disk?.inFlight,
  },
  ...entries(SERVER).map(([key, named]) =>
    counter(named, 'server', ({ counters }) => counters?.[key]),
  ),
  counter(
    ['stalls_total', 'Requests and threads that the watchdog of the device has reported.'],
    'server',
    ({ stalled }) => stalled,
  ),
  {
    ...counter(
      ['request_duration_seconds', 'Time that the server had each request (option latencies).'],
      'server',
      ({ latencies }) => latencies && durations(latencies),
    ),
    type: 'histogram',
    labels: ['op'],
  },
  ...entries(KERNEL).map(([key, named]) => {
    const unit = key.endsWith('Ms') ? 1000 : 1;
    return counter(named, 'kernel', ({ disk }) => disk && disk[key] / unit);
  }),
];

function gauge(name: string, help: string, origin: MetricOrigin = 'kernel'): MetricDefinition {
  return { name: `ublk_${name}`, help, type: 'gauge', origin };
}

function counter(
  [name, help]: Named,
  origin: MetricOrigin,
  of: MetricDefinition['of'] & {},
): MetricDefinition {
  return { name: `ublk_${name}`, help, type: 'counter', origin, of };
}

function entries<Key extends string, Value>(all: Record<Key, Value>): [Key, Value][] {
  return Object.entries(all) as [Key, Value][];
}

/** The metrics of devices. A metric without a value has no samples. */
export function toFamilies(sources: readonly MetricSource[], version: string): MetricFamily[] {
  const labelled = sources.map((source) => {
    const { info, name } = source;
    return { source, labels: { device: `ublkb${info.id}`, ...(name !== undefined && { name }) } };
  });
  return DEFINITIONS.map(({ name, help, type, of }) => {
    if (of === undefined) return { name, help, type, samples: [{ labels: { version }, value: 1 }] };
    const samples: MetricSample[] = [];
    for (const { source, labels } of labelled) {
      const values = of(source);
      if (typeof values === 'number') samples.push({ labels, value: values });
      else if (values !== undefined)
        for (const one of values) samples.push({ ...one, labels: { ...labels, ...one.labels } });
    }
    return { name, help, type, samples };
  });
}
