// Rows that do not change with this project's commits, taken over from an earlier report. Pure.

import { differences } from './compare.ts';
import type { Row } from './matrix.ts';
import type { Report, ReportRow } from './report.ts';

/** Whether a row is this project's, and changes with it. */
export const isOwn = ({ kind }: Pick<ReportRow, 'kind'>): boolean => kind === 'server';

/**
 * The report with the rows of others that `before` has. Throws when that was measured under other
 * circumstances.
 */
export function takeOver(report: Report, before: Report, rows: readonly Row[]): Report {
  const other = differences(before, report);
  if (other.length > 0 || before.clock !== report.clock) {
    throw new Error(`Nothing can be taken over from the earlier report: ${other.join('; ')}.`);
  }
  const others = before.rows.filter((row) => !isOwn(row));
  const all = new Map([...others, ...report.rows].map((row) => [row.id, row]));
  const ordered = new Set([...rows.map(({ id }) => id), ...all.keys()]);
  const against = new Map(rows.map((row) => [row.id, row.against]));
  const kept = (before.breakdowns ?? []).filter(({ id }) => others.some((row) => row.id === id));
  return {
    ...report,
    rows: [...ordered].flatMap((id) => {
      const row = all.get(id);
      return row ? withRatio(row, all.get(against.get(id) ?? '')) : [];
    }),
    breakdowns: [...kept, ...(report.breakdowns ?? [])],
  };
}

function withRatio(row: ReportRow, against: ReportRow | undefined): ReportRow {
  if (!against) return row;
  const ratio = row.values.cost / against.values.cost;
  return { ...row, against: { id: against.id, ratio } };
}
