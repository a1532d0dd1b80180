import { expect, test } from 'vitest';
import { compareReports, differences, lowerOf, regressions } from '../../../bench/compare.ts';
import type { ReportRow } from '../../../bench/report.ts';
import { changeTable } from '../../../bench/table.ts';
import { reportOf, valuesOf } from './fixtures.ts';

const row = (id: string, cost: number, spread?: [number, number]): ReportRow => ({
  id,
  subject: 'raw',
  kind: 'raw',
  target: 'file',
  queues: 1,
  workload: '4k randread qd1',
  values: valuesOf(cost),
  ...(spread && { spread }),
});
const verdictOf = (before: number, after: number) =>
  compareReports(reportOf([row('a', before)]), reportOf([row('a', after)]))[0]?.verdict;

test('more than one percent is worse, more than three a regression', () => {
  expect(verdictOf(1000, 1009)).toBe('same');
  expect(verdictOf(1000, 1011)).toBe('worse');
  expect(verdictOf(1000, 1029)).toBe('worse');
  expect(verdictOf(1000, 1031)).toBe('regression');
  expect(verdictOf(1000, 989)).toBe('better');
});

test('rounds that overlap are the same', () => {
  const before = reportOf([row('a', 100, [90, 115])]);
  const overlapping = reportOf([row('a', 120, [110, 130])]);
  const apart = reportOf([row('a', 120, [116, 130])]);
  expect(compareReports(before, overlapping)[0]?.verdict).toBe('same');
  expect(compareReports(before, apart)[0]?.verdict).toBe('regression');
});

test('only rows that both have are compared', () => {
  const before = reportOf([row('a', 1), row('gone', 1)]);
  const changes = compareReports(before, reportOf([row('new', 1), row('a', 1)]));
  expect(changes.map(({ id }) => id)).toEqual(['a']);
});

test('what cannot be compared is refused', () => {
  const one = reportOf([row('a', 1)]);
  expect(() => compareReports(one, reportOf([row('a', 1)], { clock: 'time' }))).toThrow('time');
  expect(() => compareReports(one, reportOf([row('b', 1)]))).toThrow('no row in common');
});

test('another kernel is named as a cause', () => {
  const one = reportOf([]);
  expect(differences(one, one)).toEqual([]);
  expect(differences(one, reportOf([], { kernel: '7.4' }))).toEqual([
    'kernel: 7.3.4 before, 7.4 now',
  ]);
});

test('a row that costs much more is a regression, unless the circumstances explain it', () => {
  const before = reportOf([row('a', 1000), row('b', 1000)]);
  const after = [row('a', 1000), row('b', 1040)];
  expect(regressions(before, reportOf(after))).toEqual(new Set(['b']));
  expect(regressions(before, reportOf(after.slice(0, 1)))).toEqual(new Set());
  for (const other of [{ kernel: '7.3.5' }, { fio: 'fio-3.36' }, { machine: 'QEMU 10' }]) {
    expect(regressions(before, reportOf(after, other))).toEqual(new Set());
  }
});

test('a row that was measured again counts with the lower of its costs', () => {
  const report = reportOf([row('chance', 1040), row('slower', 1040), row('once', 1000)]);
  const lower = lowerOf(report, reportOf([row('slower', 1050), row('chance', 1001)]));
  expect(lower.rows.map(({ id, values }) => [id, values.cost])).toEqual([
    ['chance', 1001],
    ['slower', 1040],
    ['once', 1000],
  ]);
});

test('the table prints the rows that changed and counts the others', () => {
  const before = reportOf([row('fine', 1000), row('slow', 1000)]);
  const text = changeTable(
    compareReports(before, reportOf([row('fine', 1000), row('slow', 1100)])),
  );
  expect(text).toMatch(/slow +1,000 +1,100 +\+10\.0 % +.*regression/);
  expect(text).toContain('1 of 2 rows are the same within 1 %');
  expect(text).not.toContain('fine');
});
