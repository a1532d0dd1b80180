// A report: the rows of one run, and what they were measured with.

import { readFile } from 'node:fs/promises';
import type { Breakdown } from './breakdowns.ts';
import type { Row } from './matrix.ts';
import type { Subject } from './subjects.ts';
import { type Measurement, medianOf } from './measurement.ts';

const FORMAT = 1;

export interface Report {
  format: typeof FORMAT;
  /** Which clock: one that ticks once per instruction, or time itself. */
  clock: 'instructions' | 'time';
  date: string;
  commit: string;
  kernel: string;
  fio: string;
  machine: string;
  /** How often each row was measured; its values are of the round of median cost. */
  rounds: number;
  rows: ReportRow[];
  /** Of some rows: where their instructions go. */
  breakdowns?: Breakdown[];
}

export interface ReportRow {
  id: string;
  subject: string;
  kind: Subject['kind'];
  /** What of the server its subject varies; absent for the rows that everything is judged by. */
  varies?: Subject['varies'];
  target: Subject['target'];
  queues: number;
  /** Devices that the process serves, where that is what varies. */
  devices?: number;
  workload: string;
  values: Measurement;
  /** The least and the greatest cost, where there were several rounds. */
  spread?: [number, number];
  /** The row that it stands against, and its own cost as a multiple of that row's. */
  against?: { id: string; ratio: number };
}

/** The rows that were measured, in the order of `rows`, each set against another. */
export function reportRows(
  rows: readonly Row[],
  measurements: ReadonlyMap<number, readonly Measurement[]>,
): ReportRow[] {
  const values = new Map<string, Measurement>();
  rows.forEach(({ id }, index) => {
    const median = medianOf(measurements.get(index) ?? []);
    if (median) values.set(id, median);
  });
  return rows.flatMap(({ id, subject, workload, against }, index) => {
    const own = values.get(id);
    if (!own) return [];
    const other = against === undefined ? undefined : values.get(against);
    const { name, kind, target, queues, varies, devices } = subject;
    return {
      id,
      subject: name,
      kind,
      target,
      queues,
      ...(varies && { varies }),
      ...(devices && { devices }),
      workload: workload.name,
      values: own,
      ...spreadOf(measurements.get(index) ?? []),
      ...(other && { against: { id: against!, ratio: own.cost / other.cost } }),
    };
  });
}

function spreadOf(all: readonly Measurement[]): { spread?: [number, number] } {
  if (all.length < 2) return {};
  const costs = all.map(({ cost }) => cost);
  return { spread: [Math.min(...costs), Math.max(...costs)] };
}

/** Rejects with what is wrong when the file is no report. */
export async function readReport(path: string): Promise<Report> {
  const text = await readFile(path, 'utf8');
  const report = parse(text);
  if (report?.format === FORMAT && Array.isArray(report.rows)) return report;
  throw new Error(
    `${path} is no report of this bench, or of another version of it. ` +
      'Make one with: npm run bench -- --out DIR',
  );
}

function parse(text: string): Report | undefined {
  try {
    return JSON.parse(text) as Report;
  } catch {
    return undefined;
  }
}
