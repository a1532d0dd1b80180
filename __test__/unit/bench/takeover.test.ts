import { expect, test } from 'vitest';
import { chooseRows } from '../../../bench/matrix.ts';
import { type Report, reportRows } from '../../../bench/report.ts';
import { takeOver } from '../../../bench/takeover.ts';
import { reportOf, valuesOf } from './fixtures.ts';

const rows = chooseRows({ rows: /^file auto per-io, 1 queue, 4k randread qd1$/ });
const report = (costs: [number, number][], more: Partial<Report> = {}): Report => {
  const measured = costs.map(([index, cost]) => [index, [valuesOf(cost)]] as const);
  return reportOf(reportRows(rows, new Map(measured)), more);
};

test("others' rows stay, this project's are the new ones, and stand against the others'", () => {
  const before = report([[0, 40_000], [1, 50_000]]); // prettier-ignore
  const after = takeOver(report([[1, 30_000]], { commit: 'new' }), before, rows);
  expect(after.commit).toBe('new');
  expect(after.rows.map(({ id, values: { cost } }) => [id.split(',')[0], cost])).toEqual([
    ['loop', 40_000],
    ['file auto per-io', 30_000],
  ]);
  expect(after.rows[1]?.against).toEqual({ id: after.rows[0]?.id, ratio: 0.75 });
});

test('what was measured under other circumstances is not taken over', () => {
  const before = report([[0, 40_000]], { kernel: '7.2' });
  expect(() => takeOver(report([[1, 30_000]]), before, rows)).toThrow('kernel: 7.2 before');
});
