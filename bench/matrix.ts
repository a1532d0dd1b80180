// Which rows are measured: subjects and workloads put together. Pure.

import { type Other, type Subject, mainSubjects, otherSubject, subjectId } from './subjects.ts';
import { handlers } from './handlers/index.ts';
import { overlays } from './overlays.ts';
import { variants } from './variants.ts';
import { WORKLOADS, type Workload } from './workloads.ts';

export interface Row {
  /** Names the row in every report. */
  id: string;
  subject: Subject;
  workload: Workload;
  /** The id of the row that it stands against. */
  against?: string;
}

export interface Choice {
  /** Only the rows that tell a regression. */
  quick?: boolean;
  /** Only rows whose id matches, and those that they stand against. */
  rows?: RegExp;
  others?: readonly Other[];
}

/** The rows to measure, those of one subject beside each other. */
export function chooseRows({ quick = false, rows: filter, others = [] }: Choice = {}): Row[] {
  const own = [...mainSubjects(), ...variants(), ...overlays(), ...handlers()];
  const subjects = [...own, ...others.map(otherSubject)];
  const rows = subjects.flatMap((subject) =>
    workloadsOf(subject, quick).map((workload) => toRow(subject, workload)),
  );
  if (!filter) return rows;
  const matching = rows.filter((row) => filter.test(row.id));
  const wanted = new Set(matching.flatMap((row) => [row.id, row.against]));
  return rows.filter((row) => wanted.has(row.id));
}

function workloadsOf({ workloads }: Subject, quick: boolean): Workload[] {
  const names = quick ? workloads.quick : workloads.whole;
  return WORKLOADS.filter(({ name }) => names.includes(name));
}

function toRow(subject: Subject, workload: Workload): Row {
  const row = { id: `${subjectId(subject)}, ${workload.name}`, subject, workload };
  return subject.against ? { ...row, against: `${subject.against}, ${workload.name}` } : row;
}
