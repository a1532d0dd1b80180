// What changed between two reports. Pure.

import type { Report, ReportRow } from './report.ts';

/** Above this part a row is worth a look. */
export const NOTABLE = 0.01;
/** Above this part it is a regression. */
export const REGRESSION = 0.03;

export type Verdict = 'regression' | 'worse' | 'same' | 'better';

export interface Change {
  id: string;
  before: number;
  after: number;
  /** Of the cost: 0.01 is one percent more. */
  change: number;
  verdict: Verdict;
}

/**
 * Compares the costs of the rows that both have. Throws when they cannot be compared: another
 * clock, or no row in common.
 */
export function compareReports(before: Report, after: Report): Change[] {
  if (before.clock !== after.clock) {
    throw new Error(
      `These reports cannot be compared: one counts ${before.clock}, the other ${after.clock}.`,
    );
  }
  const old = new Map(before.rows.map((row) => [row.id, row]));
  const changes = after.rows.flatMap((row) => {
    const one = old.get(row.id);
    return one ? [changeOf(one, row)] : [];
  });
  if (changes.length === 0) throw new Error('These reports have no row in common.');
  return changes;
}

/** The rows that have become worse for certain: another kernel, fio or machine explains all. */
export function regressions(before: Report, after: Report): Set<string> {
  if (differences(before, after).length > 0) return new Set();
  const changes = compareReports(before, after).filter((one) => one.verdict === 'regression');
  return new Set(changes.map(({ id }) => id));
}

/** The report with the lower of a row's two costs, for those that were measured again. */
export function lowerOf(report: Report, again: Report): Report {
  const second = new Map(again.rows.map((row) => [row.id, row]));
  const rows = report.rows.map((row) => {
    const other = second.get(row.id);
    return other && other.values.cost < row.values.cost ? other : row;
  });
  return { ...report, rows };
}

/** What differs in the circumstances, so that a change need not be the server's doing. */
export function differences(before: Report, after: Report): string[] {
  return (['kernel', 'fio', 'machine'] as const)
    .filter((name) => before[name] !== after[name])
    .map((name) => `${name}: ${before[name]} before, ${after[name]} now`);
}

function changeOf(before: ReportRow, after: ReportRow): Change {
  const change = after.values.cost / before.values.cost - 1;
  return {
    id: after.id,
    before: before.values.cost,
    after: after.values.cost,
    change,
    verdict: apart(before, after) ? verdictOf(change) : 'same',
  };
}

function verdictOf(change: number): Verdict {
  if (change > REGRESSION) return 'regression';
  if (change > NOTABLE) return 'worse';
  return change < -NOTABLE ? 'better' : 'same';
}

/** Rounds that overlap differ by chance. */
function apart({ spread: one }: ReportRow, { spread: other }: ReportRow): boolean {
  return !one || !other || one[1] < other[0] || other[1] < one[0];
}
