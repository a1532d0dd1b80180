import { expect, test } from 'vitest';
import { separationSection, standingSection, variantSections } from '../../../bench/sections.ts';
import { type Report, type ReportRow } from '../../../bench/report.ts';
import { standings } from '../../../bench/standing.ts';
import { DEFAULT_MODE } from '../../../bench/subjects.ts';
import { reportOf, valuesOf } from './fixtures.ts';

const WORKLOAD = '4k randread qd32';

function row(subject: string, kind: ReportRow['kind'], cost: number, more: object = {}): ReportRow {
  return {
    id: `${subject}, 1 queue, ${WORKLOAD}`,
    subject,
    kind,
    target: 'file',
    queues: 1,
    workload: WORKLOAD,
    values: valuesOf(cost),
    ...more,
  };
}

const report: Report = reportOf([
  row('loop', 'loop', 16_000),
  row(`file ${DEFAULT_MODE}`, 'server', 17_000),
  row('file auto batch nomerges=2', 'server', 16_500, { varies: 'settings' }),
  row('file auto batch 64 devices', 'server', 10_000, { varies: 'scale' }),
  row('file by kublk auto', 'other', 20_000),
  row('file by kublk auto batch', 'other', 18_000),
]);

test('the best of the others stands beside this server without options, and with the best', () => {
  expect(standings(report, 'file')).toEqual([
    {
      workload: WORKLOAD,
      other: { name: 'kublk auto batch', cost: 18_000 },
      own: 17_000,
      best: { name: 'auto batch nomerges=2', cost: 16_500 },
      loop: 16_000,
    },
  ]);
  const text = standingSection(report).join('\n');
  expect(text).toContain('| 18,000 (kublk auto batch) | 17,000 | 0.94 × |');
});

test('what separates this server from loop is told area by area, the greatest first', () => {
  const of = (subject: string, areas: Record<string, number>) => ({
    id: `${subject}, 1 queue, ${WORKLOAD}`,
    subject,
    workload: WORKLOAD,
    areas,
  });
  const breakdowns = [
    of('loop', { 'block layer': 5000, workqueues: 300 }),
    of(`file ${DEFAULT_MODE}`, { 'block layer': 5100, io_uring: 1000 }),
  ];
  const [, , , table = ''] = separationSection({ ...report, breakdowns });
  expect(table.split('\n').slice(2)).toEqual([
    '| io_uring | 0 | 1,000 | +1,000 |',
    '| block layer | 5,000 | 5,100 | +100 |',
    '| workqueues | 300 | 0 | −300 |',
    '| all | 5,300 | 6,100 | +800 |',
  ]);
});

test('what a device costs in memory is told per device', () => {
  const values = (memoryKiB: number) => ({ ...report.rows[0]!.values, memoryKiB });
  const one = row('file 1 device', 'server', 100, { varies: 'scale', values: values(1000) });
  const against = { id: one.id, ratio: 1.02 };
  const more = { varies: 'scale', devices: 5, against, values: values(1100) };
  const rows = [one, row('file 5 devices', 'server', 102, more)];
  const text = variantSections({ ...report, rows }).join('\n');
  expect(text).toMatch(/\| file 5 devices, 1 queue \| .* \| \+2\.0 % \| 1,100 \| 25\.0 \|/);
});
