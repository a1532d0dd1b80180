// The rows as tables for a terminal.

import { styleText } from 'node:util';
import Table from 'cli-table3';
import type { Change } from './compare.ts';
import { queuesText } from './subjects.ts';
import type { Report, ReportRow } from './report.ts';
import { costName, micros, percent, short, thousands, times } from './text.ts';

type Column = [heading: string, value: (row: ReportRow) => string];

/** Heading and value of each column after the row's name; `undefined` values are left empty. */
export function columns(report: Pick<Report, 'clock'>): Column[] {
  const value =
    <T>(pick: (row: ReportRow) => T | undefined, format: (value: T) => string) =>
    (row: ReportRow) => {
      const picked = pick(row);
      return picked === undefined ? '' : format(picked);
    };
  const native: Column[] = [
    ['± %', value((row) => row.spread, spreadText)],
    ['CPU µs per I/O', (row) => (row.values.cpuSecondsPerIo * 1e6).toFixed(1)],
  ];
  return [
    [costName(report), (row) => thousands(row.values.cost)],
    ...(report.clock === 'time' ? native : []),
    ['against', value((row) => row.against?.id.split(',')[0], String)],
    ['ratio', value((row) => row.against?.ratio, times)],
    ['IOPS', (row) => thousands(row.values.iops)],
    ['mean µs', (row) => micros(row.values.meanLatencyNs)],
    ['p99 µs', (row) => micros(row.values.p99LatencyNs)],
    ['syscalls per I/O', value((row) => row.values.syscallsPerIo, short)],
    ['requests per enter', value((row) => row.values.requestsPerEnter, short)],
    ['RSS KiB', value((row) => row.values.memoryKiB, thousands)],
  ];
}

function spreadText([least, greatest]: [number, number]): string {
  return ((50 * (greatest - least)) / ((greatest + least) / 2)).toFixed(1);
}

/** One table, a heading line for each subject. */
export function resultTable(report: Report): string {
  const all = columns(report);
  const table = plainTable(['', ...all.map(([heading]) => heading)]);
  let last = '';
  for (const row of report.rows) {
    const subject = `${row.subject}, ${queuesText(row.queues)}`;
    if (subject !== last) {
      table.push([{ content: styleText('bold', subject), colSpan: all.length + 1 }]);
    }
    last = subject;
    table.push([`  ${row.workload}`, ...all.map(([, value]) => right(value(row)))]);
  }
  return table.toString();
}

/** The rows that changed; those that stayed are only counted. */
export function changeTable(changes: readonly Change[]): string {
  const changed = changes.filter(({ verdict }) => verdict !== 'same');
  const rest = `${changes.length - changed.length} of ${changes.length} rows are the same within 1 %`;
  if (changed.length === 0) return rest;
  const table = plainTable(['', 'before', 'after', 'change', '']);
  for (const { id, before, after, change, verdict } of changed) {
    const style = { regression: 'red', worse: 'yellow', same: 'dim', better: 'green' } as const;
    table.push([
      id,
      ...[thousands(before), thousands(after), percent(change)].map(right),
      styleText(style[verdict], verdict),
    ]);
  }
  return `${table.toString()}\n${rest}`;
}

const BORDERS = ['top', 'bottom', 'left', 'mid', 'right'].flatMap((side) => [
  side,
  `${side}-mid`,
  `${side}-left`,
  `${side}-right`,
]);

function plainTable(head: string[]) {
  return new Table({
    head,
    chars: { ...Object.fromEntries(BORDERS.map((border) => [border, ''])), middle: '  ' },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
    wordWrap: false,
  });
}

const right = (content: string) => ({ content, hAlign: 'right' as const });
