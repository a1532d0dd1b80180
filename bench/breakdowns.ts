// Where the instructions of a few telling rows go: what the report says of it.

import type { Row } from './matrix.ts';
import { byArea } from './profile/areas.ts';
import { flameGraph } from './profile/flame.ts';
import { profile } from './profile/index.ts';
import { DEFAULT_MODE } from './subjects.ts';

/** The instructions of one row, by what they are for. */
export interface Breakdown {
  /** The row's id. */
  id: string;
  subject: string;
  workload: string;
  areas: Readonly<Record<string, number>>;
}

export interface Flame {
  file: string;
  title: string;
  svg: string;
}

const SUBJECTS = ['loop', `file ${DEFAULT_MODE}`];
const WORKLOADS = ['4k randread qd32', '4k randread qd1'];

/** The rows that are broken down in a whole run: this server without options, and loop. */
export function tellingRows(rows: readonly Row[]): Row[] {
  const telling = ({ subject, workload }: Row) =>
    SUBJECTS.includes(subject.name) && subject.queues === 1 && WORKLOADS.includes(workload.name);
  return rows.filter(telling);
}

/** Runs each row again under the profiler, in a machine of its own. */
export async function breakDown(
  rows: readonly Row[],
  kernel?: string,
): Promise<{ breakdowns: Breakdown[]; flames: Flame[] }> {
  const breakdowns: Breakdown[] = [];
  const flames: Flame[] = [];
  for (const row of rows) {
    const { id, subject, workload } = row;
    const { instructions } = await profile(row, kernel);
    breakdowns.push({
      id,
      subject: subject.name,
      workload: workload.name,
      areas: byArea(instructions),
    });
    if (subject.kind !== 'server') continue;
    const title = `The server's own instructions per I/O: ${subject.name}, ${workload.name}`;
    const file = `flame-qd${workload.depth}.svg`;
    flames.push({ file, title, svg: flameGraph(instructions, 'server', title) });
  }
  return { breakdowns, flames };
}
