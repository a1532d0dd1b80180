import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { execa } from 'execa';
import { expect, onTestFinished, test, vi } from 'vitest';

import { findProgram } from '../../../scripts/debian.ts';
import { withTable } from '../../../scripts/metrics/table.ts';
import { Device } from '../../../src/device.ts';
import { parseDiskStat, readDiskStats, type DiskStat } from '../../../src/disk-stat.ts';
import { metrics } from '../../../src/index.ts';
import { DEFINITIONS, toFamilies, type MetricSource } from '../../../src/metrics/families.ts';
import { sourcesOf } from '../../../src/metrics/metrics.ts';
import { toText } from '../../../src/metrics/text.ts';
import type { NativeEnd } from '../../../src/native.ts';
import { packageVersion } from '../../../src/version.ts';
import { collectDefaultMetrics, Registry } from '../../prom-client.ts';
import { fakeDevice } from '../fake-device.ts';

/** A line of /sys/block/ublkb0/stat, each field another number. */
const STAT =
  '    11    12    13    1400    21    22    23    2400     3    3100    32 41 42 43 4400 51 5200\n';

/** A device without a kernel; closed at the end of the test. */
function open(name?: string): { device: Device; end: (end: NativeEnd) => void } {
  let end!: (end: NativeEnd) => void;
  const ended = new Promise<NativeEnd>((resolve) => (end = resolve));
  const device = new Device(fakeDevice(end), ended);
  device.named(name);
  onTestFinished(() => device.close());
  return { device, end };
}

function sources(name: string | undefined, disk?: DiskStat): MetricSource[] {
  return sourcesOf([open(name).device], () => disk);
}

test('the text is that of Prometheus, with each counter of the server and the kernel', () => {
  expect(toText(toFamilies(sources('data', parseDiskStat(STAT)), '1.2.3'))).toMatchInlineSnapshot(`
    "# HELP ublk_build_info The version of ublk that exports the metrics; always 1.
    # TYPE ublk_build_info gauge
    ublk_build_info{version="1.2.3"} 1
    # HELP ublk_device_state State of the device: 1 for the present state, 0 for others.
    # TYPE ublk_device_state gauge
    ublk_device_state{device="ublkb7",name="data",state="dead"} 0
    ublk_device_state{device="ublkb7",name="data",state="live"} 1
    ublk_device_state{device="ublkb7",name="data",state="quiesced"} 0
    ublk_device_state{device="ublkb7",name="data",state="fail-io"} 0
    # HELP ublk_size_bytes Size of the device.
    # TYPE ublk_size_bytes gauge
    ublk_size_bytes{device="ublkb7",name="data"} 1073741824
    # HELP ublk_queues Hardware queues of the device.
    # TYPE ublk_queues gauge
    ublk_queues{device="ublkb7",name="data"} 2
    # HELP ublk_queue_depth Largest number of requests of one queue in flight at once.
    # TYPE ublk_queue_depth gauge
    ublk_queue_depth{device="ublkb7",name="data"} 128
    # HELP ublk_disk_io_now Requests in flight, counted by the kernel.
    # TYPE ublk_disk_io_now gauge
    ublk_disk_io_now{device="ublkb7",name="data"} 3
    # HELP ublk_reads_completed_total Reads answered by the server.
    # TYPE ublk_reads_completed_total counter
    ublk_reads_completed_total{device="ublkb7",name="data"} 3
    # HELP ublk_read_bytes_total Bytes of the reads answered by the server.
    # TYPE ublk_read_bytes_total counter
    ublk_read_bytes_total{device="ublkb7",name="data"} 8704
    # HELP ublk_writes_completed_total Writes answered by the server.
    # TYPE ublk_writes_completed_total counter
    ublk_writes_completed_total{device="ublkb7",name="data"} 0
    # HELP ublk_written_bytes_total Bytes of the writes answered by the server.
    # TYPE ublk_written_bytes_total counter
    ublk_written_bytes_total{device="ublkb7",name="data"} 0
    # HELP ublk_flush_requests_total Flushes answered by the server.
    # TYPE ublk_flush_requests_total counter
    ublk_flush_requests_total{device="ublkb7",name="data"} 0
    # HELP ublk_discards_completed_total Discards answered by the server.
    # TYPE ublk_discards_completed_total counter
    ublk_discards_completed_total{device="ublkb7",name="data"} 0
    # HELP ublk_write_zeroes_completed_total Requests to write zeros answered by the server.
    # TYPE ublk_write_zeroes_completed_total counter
    ublk_write_zeroes_completed_total{device="ublkb7",name="data"} 0
    # HELP ublk_request_errors_total Failed requests.
    # TYPE ublk_request_errors_total counter
    ublk_request_errors_total{device="ublkb7",name="data"} 0
    # HELP ublk_zero_copy_bytes_total Bytes moved between the client's pages and the target without a copy.
    # TYPE ublk_zero_copy_bytes_total counter
    ublk_zero_copy_bytes_total{device="ublkb7",name="data"} 0
    # HELP ublk_copied_bytes_total Bytes copied by the kernel between the client's pages and a buffer of the server.
    # TYPE ublk_copied_bytes_total counter
    ublk_copied_bytes_total{device="ublkb7",name="data"} 0
    # HELP ublk_short_results_total Short results of the backing store, each continued for the rest.
    # TYPE ublk_short_results_total counter
    ublk_short_results_total{device="ublkb7",name="data"} 0
    # HELP ublk_zero_filled_bytes_total Bytes read as zeros beyond the end of the backing file.
    # TYPE ublk_zero_filled_bytes_total counter
    ublk_zero_filled_bytes_total{device="ublkb7",name="data"} 0
    # HELP ublk_buffer_registrations_total Buffers registered by the server.
    # TYPE ublk_buffer_registrations_total counter
    ublk_buffer_registrations_total{device="ublkb7",name="data"} 0
    # HELP ublk_buffer_fallbacks_total Requests whose buffer the server registered because the kernel could not.
    # TYPE ublk_buffer_fallbacks_total counter
    ublk_buffer_fallbacks_total{device="ublkb7",name="data"} 0
    # HELP ublk_io_uring_enters_total Calls of io_uring_enter by the reactors.
    # TYPE ublk_io_uring_enters_total counter
    ublk_io_uring_enters_total{device="ublkb7",name="data"} 0
    # HELP ublk_stalls_total Requests and threads that the watchdog of the device has reported.
    # TYPE ublk_stalls_total counter
    ublk_stalls_total{device="ublkb7",name="data"} 0
    # HELP ublk_disk_reads_completed_total Reads completed, counted by the kernel.
    # TYPE ublk_disk_reads_completed_total counter
    ublk_disk_reads_completed_total{device="ublkb7",name="data"} 11
    # HELP ublk_disk_read_bytes_total Bytes read, counted by the kernel.
    # TYPE ublk_disk_read_bytes_total counter
    ublk_disk_read_bytes_total{device="ublkb7",name="data"} 6656
    # HELP ublk_disk_read_time_seconds_total Time of all reads together.
    # TYPE ublk_disk_read_time_seconds_total counter
    ublk_disk_read_time_seconds_total{device="ublkb7",name="data"} 1.4
    # HELP ublk_disk_writes_completed_total Writes completed, counted by the kernel.
    # TYPE ublk_disk_writes_completed_total counter
    ublk_disk_writes_completed_total{device="ublkb7",name="data"} 21
    # HELP ublk_disk_written_bytes_total Bytes written, counted by the kernel.
    # TYPE ublk_disk_written_bytes_total counter
    ublk_disk_written_bytes_total{device="ublkb7",name="data"} 11776
    # HELP ublk_disk_write_time_seconds_total Time of all writes together.
    # TYPE ublk_disk_write_time_seconds_total counter
    ublk_disk_write_time_seconds_total{device="ublkb7",name="data"} 2.4
    # HELP ublk_disk_discards_completed_total Discards completed, counted by the kernel.
    # TYPE ublk_disk_discards_completed_total counter
    ublk_disk_discards_completed_total{device="ublkb7",name="data"} 41
    # HELP ublk_disk_discarded_bytes_total Bytes discarded, counted by the kernel.
    # TYPE ublk_disk_discarded_bytes_total counter
    ublk_disk_discarded_bytes_total{device="ublkb7",name="data"} 22016
    # HELP ublk_disk_discard_time_seconds_total Time of all discards together.
    # TYPE ublk_disk_discard_time_seconds_total counter
    ublk_disk_discard_time_seconds_total{device="ublkb7",name="data"} 4.4
    # HELP ublk_disk_flush_requests_total Flushes completed, counted by the kernel.
    # TYPE ublk_disk_flush_requests_total counter
    ublk_disk_flush_requests_total{device="ublkb7",name="data"} 51
    # HELP ublk_disk_flush_requests_time_seconds_total Time of all flushes together.
    # TYPE ublk_disk_flush_requests_time_seconds_total counter
    ublk_disk_flush_requests_time_seconds_total{device="ublkb7",name="data"} 5.2
    # HELP ublk_disk_io_time_seconds_total Time with at least one request in flight.
    # TYPE ublk_disk_io_time_seconds_total counter
    ublk_disk_io_time_seconds_total{device="ublkb7",name="data"} 3.1
    "
  `);
});

const promtool = process.env['UBLK_PROMTOOL'] ?? findProgram('promtool');
const why = promtool === undefined ? ' [no promtool: npm test -- unit]' : '';

test.runIf(promtool)(`promtool finds nothing wrong with the text${why}`, async () => {
  const all = [...sources('a"b\\c\n', parseDiskStat(STAT)), ...sources(undefined)];
  const input = toText(toFamilies(all, packageVersion()));
  const checked = await execa(promtool!, ['check', 'metrics'], { input, all: true, reject: false });
  expect(checked).toMatchObject({ all: '', exitCode: 0 });
});

test('a device that is about to go has the counters of its server and none of the kernel', () => {
  const { device, end } = open();
  end({ reason: 'stopped' });
  const text = toText(
    toFamilies(
      sourcesOf([device], () => undefined),
      '1.2.3',
    ),
  );
  expect(text).toContain('\nublk_reads_completed_total{device="ublkb7"} 3\n');
  expect(text).not.toContain('ublk_disk_');
});

test('a device whose server cannot be asked has the counters of the kernel', () => {
  const [{ info } = expect.fail()] = sources('data');
  const text = toText(toFamilies([{ info, disk: parseDiskStat(STAT) }], '1.2.3'));
  expect(text).toContain('\nublk_disk_read_time_seconds_total{device="ublkb7"} 1.4\n');
  expect(text).not.toContain('ublk_reads_completed_total');
});

test('values of labels are escaped, and lines of help', () => {
  const labels = { a: 'x"y\\z\n', b: 'ü{}' };
  const families = [
    { name: 'm', help: 'a\\b\n"c"', type: 'gauge', samples: [{ labels, value: 1e21 }] },
    { name: 'n', help: 'none', type: 'gauge', samples: [] },
  ] as const;
  expect(toText(families)).toBe(
    '# HELP m a\\\\b\\n"c"\n# TYPE m gauge\nm{a="x\\"y\\\\z\\n",b="ü{}"} 1e+21\n',
  );
});

test('the kernel names the counters of all disks in one file', () => {
  const text = `   7       0 loop0 ${STAT}\n 259       1 ublkb1 ${STAT}\n 259       2 ublkb1p1 9 9 9\n 259      12 ublkb12 0 0\n`;
  const diskOf = readDiskStats(() => text);
  expect(diskOf(1)).toEqual(parseDiskStat(STAT));
  expect(diskOf(12)).toEqual(parseDiskStat('0'));
  expect(diskOf(0)).toBeUndefined();
});

test('a thousand devices have one line each for each value', () => {
  const [one = expect.fail()] = sources('data', parseDiskStat(STAT));
  const many = Array.from({ length: 1000 }, (_, id) => {
    return { ...one, info: { ...one.info, id }, name: `data-${id}` };
  });
  const lines = toText(toFamilies(many, '1.2.3')).trimEnd().split('\n');
  const each = DEFINITIONS.length - 2 + 3; // without the version and latencies; three more states
  expect(lines.filter((line) => !line.startsWith('#')).length).toBe(1000 * each + 1);
  expect(new Set(lines).size).toBe(lines.length);
});

test('metrics() has the open devices of the program, or those that it is given', () => {
  const { device } = open('data');
  const { device: other } = open();
  using all = metrics();
  const reads = (text: string): string[] => text.match(/^ublk_reads_completed_total.*/gm) ?? [];
  expect(reads(all.text())).toEqual([
    'ublk_reads_completed_total{device="ublkb7",name="data"} 3',
    'ublk_reads_completed_total{device="ublkb7"} 3',
  ]);
  using chosen = metrics(undefined, { devices: () => [other] });
  expect(reads(chosen.text())).toEqual(['ublk_reads_completed_total{device="ublkb7"} 3']);
  expect(chosen.families().map(({ name }) => name)).toEqual(DEFINITIONS.map(({ name }) => name));
  expect(device.name).toBe('data');
});

test('a registry of prom-client says the same as the text, beside other metrics', async () => {
  open('data');
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const exported = metrics(registry);
  const said = await registry.metrics();
  for (const line of exported.text().trimEnd().split('\n'))
    expect(said.split('\n')).toContain(line);
  expect(said).toContain('process_cpu_seconds_total');
  const version = { labels: { version: packageVersion() }, value: 1 };
  expect(await registry.getMetricsAsJSON()).toContainEqual(
    expect.objectContaining({ name: 'ublk_build_info', type: 'gauge', values: [version] }),
  );
  registry.resetMetrics();
  exported[Symbol.dispose]();
  expect(await registry.metrics()).not.toContain('ublk_');
});

test('a registry asks the devices once for each scrape', async () => {
  const { device } = open();
  const devices = vi.fn<() => Device[]>(() => [device]);
  const registry = new Registry();
  metrics(registry, { devices });
  await registry.metrics();
  expect(devices).toHaveBeenCalledTimes(1);
  await new Promise((resolve) => setImmediate(resolve));
  await registry.metrics();
  expect(devices).toHaveBeenCalledTimes(2);
});

test('a registry that has the names keeps its metrics, and gets no others', async () => {
  const registry = new Registry();
  const first = metrics(registry);
  expect(() => metrics(registry)).toThrow(/already been registered/);
  expect(await registry.metrics()).toContain('ublk_build_info');
  first[Symbol.dispose]();
  const other = new Registry();
  other.registerMetric({ name: 'ublk_queues' } as never);
  expect(() => metrics(other)).toThrow(/ublk_queues/);
  expect(other.getMetricsAsArray().map(({ name }) => name)).toEqual(['ublk_queues']);
});

test.each([
  [() => metrics({} as never), /registry is no registry of prom-client/],
  [() => metrics(undefined, { devices: [] } as never), /devices must be a function/],
  [() => metrics(undefined, { device: 1 } as never), /has no 'device'/],
])('metrics() refuses wrong arguments', (call, says) => {
  expect(call).toThrow(says);
  expect(call).toThrow(expect.objectContaining({ code: 'ERR_UBLK_INVALID_ARGUMENT' }));
});

test('the guide has the table of all metrics; npx tsx scripts/metrics.ts writes it', async () => {
  const guide = readFileSync(join(import.meta.dirname, '../../../docs/guides/watching.md'), 'utf8');
  expect(guide).toBe(await withTable(guide));
});
