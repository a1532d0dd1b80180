import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { drawCharts } from '../../../bench/charts.ts';
import { markdownReport } from '../../../bench/markdown.ts';
import { chooseRows } from '../../../bench/matrix.ts';
import { type Report, readReport, reportRows } from '../../../bench/report.ts';
import { saveReport } from '../../../bench/save.ts';
import { resultTable } from '../../../bench/table.ts';
import { reportOf } from './fixtures.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ublk-bench-test-'));
});
afterEach(() => rm(dir, { recursive: true }));

/** Every chosen row costs 10,000 and its index. */
function report({ rows: filter = /./, clock = 'instructions' as Report['clock'] } = {}): Report {
  const rows = chooseRows({ rows: filter });
  const values = (cost: number) => ({
    cost,
    iops: 1e9 / cost,
    meanLatencyNs: 12_345,
    p99LatencyNs: 23_456,
    cpuSecondsPerIo: 5e-6,
    syscallsPerIo: 0.1,
    requestsPerEnter: 10,
    memoryKiB: 2048,
  });
  const measured = rows.map((_, index) => [index, [values(10_000 + index)]] as const);
  return reportOf(reportRows(rows, new Map(measured)), { clock });
}

test('a saved report can be read again, and every chart that its text shows is there', async () => {
  const whole = report();
  await saveReport(whole, dir);
  expect(await readReport(join(dir, 'report.json'))).toEqual(whole);
  const text = await readFile(join(dir, 'README.md'), 'utf8');
  const shown = [...text.matchAll(/!\[[^\]]*\]\(([^)]+)\)/g)].map(([, file]) => file!);
  const files = await readdir(dir);
  expect(shown.length).toBeGreaterThan(3);
  expect(files.sort()).toEqual(['README.md', 'report.json', ...shown].sort());
});

test('what is no report is refused by name', async () => {
  for (const text of ['{}', 'no JSON', '{"format": 99, "rows": []}']) {
    const path = join(dir, 'other.json');
    await writeFile(path, text);
    await expect(readReport(path)).rejects.toThrow(`${path} is no report of this bench`);
  }
});

test('the text tells kernel, machine and commit, and each row with its figures', () => {
  const text = markdownReport(report());
  for (const part of ['Linux 7.3.4', 'QEMU 7.2', 'Commit c0ffee', '## Method']) {
    expect(text).toContain(part);
  }
  for (const { id } of chooseRows()) expect(text).toContain(`| ${id} |`);
});

test('charts show their figures, and the same report draws the same bytes', () => {
  const charts = drawCharts(report({ rows: /1 queue, 4k rand.*qd32$/ }));
  expect(charts.map(({ file }) => file)).toEqual(['4k-qd32.svg', 'null.svg']);
  expect(charts[0]?.svg).toMatch(/^<svg/);
  expect(charts[0]?.svg).toContain('>10,000<');
  expect(drawCharts(report({ rows: /1 queue, 4k rand.*qd32$/ }))).toEqual(charts);
});

test('figures of other servers are marked, and left out of real time', () => {
  const filter = /^file auto per-io, 1 queue/;
  expect(markdownReport(report({ rows: filter }))).toContain('| file by kublk, auto † |');
  expect(markdownReport(report({ rows: filter, clock: 'time' }))).not.toContain('†');
});

test('a table says what a row stands against and its ratio', () => {
  const text = resultTable(report({ rows: /^loop, 1 queue, 4k randread qd1$/ }));
  expect(text).toMatch(
    /4k randread qd1 +10,001 +raw +1\.00 × +99,990 +12\.3 +23\.5 +0\.1 +10 +2,048/,
  );
});

test('a table of real time has spreads and CPU time', () => {
  const text = resultTable(report({ clock: 'time', rows: /^loop, 1 queue, 4k randread qd1$/ }));
  expect(text).toContain('ns per I/O');
  expect(text).toContain('CPU µs per I/O');
});
