import { expect, test } from 'vitest';
import { parseFio } from '../../../bench/fio.ts';
import { chooseRows } from '../../../bench/matrix.ts';
import { reportRows } from '../../../bench/report.ts';
import { Transcript } from '../../../bench/transcript.ts';

const direction = (ios: number, iops: number) => ({
  total_ios: ios,
  iops,
  lat_ns: { mean: 500, percentile: { '99.000000': 900 } },
});

function fioText({ iops = 50_000, error = 0, write = false } = {}): string {
  const job = (jobname: string, ios: number) => ({
    jobname,
    error,
    read: write ? direction(0, 0) : direction(ios, iops),
    write: write ? direction(ios, iops) : direction(0, 0),
  });
  return `fio: a note\n${JSON.stringify({ jobs: [job('warm', 100), job('main', 900)] }, null, 1)}`;
}

function rowText(index: number, options: { iops?: number; errors?: number; fio?: string } = {}) {
  const { errors = 0, fio = fioText(options) } = options;
  return [
    `@row ${index}`,
    '@counters requests=5 enters=10 errors=0',
    '@cpu cpu  100 0 50 900 7 0 0 0 0 0',
    '@cpu cpu  150 0 100 999 9 0 0 0 0 0',
    `@counters requests=1005 enters=110 errors=${errors}`,
    '@memory 2048',
    '@result',
    fio,
    '@end',
  ].join('\n');
}

function read(...texts: string[]): Transcript {
  const transcript = new Transcript();
  for (const line of texts.join('\n').split('\n')) transcript.read(line);
  return transcript;
}

test('the measured part of a run counts, whichever direction it has', () => {
  expect(parseFio(fioText())).toEqual({
    ios: 900,
    warmIos: 100,
    iops: 50_000,
    meanLatencyNs: 500,
    p99LatencyNs: 900,
  });
  expect(parseFio(fioText({ write: true, iops: 7 })).iops).toBe(7);
});

test('a run that failed gives no figures', () => {
  expect(() => parseFio(fioText({ error: 5 }))).toThrow("fio's job 'main' failed with error 5");
  expect(() => parseFio('fio: no such file')).toThrow('fio printed no result: fio: no such file');
  expect(() => parseFio('{"jobs": []}')).toThrow("no job 'main'");
});

test('a transcript gives the cost, calls, CPU time and memory of each I/O', () => {
  const transcript = read('noise', '@kernel 7.3.4', '@fio fio-3.33', rowText(3));
  expect(transcript.kernel).toBe('7.3.4');
  expect(transcript.measurements.get(3)).toEqual([
    {
      cost: 20_000,
      iops: 50_000,
      meanLatencyNs: 500,
      p99LatencyNs: 900,
      cpuSecondsPerIo: 0.001,
      syscallsPerIo: 0.1,
      requestsPerEnter: 10,
      memoryKiB: 2048,
    },
  ]);
});

test('a server that fails requests has no result', () => {
  const transcript = read(rowText(0, { errors: 2 }), '@row 1', '@failed no device', rowText(2));
  expect(transcript.failures.get(0)).toBe('the server failed 2 requests');
  expect(transcript.failures.get(1)).toBe('no device');
  expect([...transcript.measurements.keys()]).toEqual([2]);
});

test('rows are medians of their rounds, set against another row', () => {
  const rows = chooseRows({ rows: /^loop, 1 queue, 4k randread qd1$/ });
  const raw = [100, 200, 400].map((iops) => rowText(0, { iops }));
  const { measurements } = read(...raw, rowText(1, { iops: 50 }));
  const [first, second] = reportRows(rows, measurements);
  expect(first?.values.cost).toBe(5e6);
  expect(first?.spread).toEqual([2.5e6, 1e7]);
  expect(second?.against).toEqual({ id: 'raw, 1 queue, 4k randread qd1', ratio: 4 });
});

test('a row that was not measured is missing, and nothing stands against it', () => {
  const rows = chooseRows({ rows: /^loop, 1 queue, 4k randread qd1$/ });
  const [only, ...rest] = reportRows(rows, read(rowText(1)).measurements);
  expect(only?.id).toBe('loop, 1 queue, 4k randread qd1');
  expect(only?.against).toBeUndefined();
  expect(rest).toEqual([]);
});
