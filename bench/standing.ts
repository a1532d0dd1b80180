// Where the server under test stands: beside the best of the others and the kernel's loop driver.
// Pure.

import { type CostLine, costGrid } from './costs.ts';
import type { Report, ReportRow } from './report.ts';
import { DEFAULT_MODE } from './subjects.ts';

export interface Best {
  name: string;
  cost: number;
}

export interface Standing {
  workload: string;
  /** The cheapest of the other servers. */
  other: Best;
  /** This server without options. */
  own: number;
  /** Its cheapest, whatever the options. */
  best: Best;
  /** The kernel's loop driver, over a file. */
  loop: number | undefined;
}

/** One line for each workload, one queue, that both this server and another were measured with. */
export function standings(report: Report, target: 'file' | 'null'): Standing[] {
  const { workloads, lines } = costGrid(report, target);
  const others = lines.filter(({ name }) => name.startsWith(`${target} by `));
  const mine = report.rows.filter((row) => isOwn(row, target));
  const byName = (name: string) => lines.find((line) => line.name === name)?.costs;
  return workloads.flatMap((workload) => {
    const other = cheapest(others, workload);
    const own = byName(`${target} ${DEFAULT_MODE}`)?.get(workload);
    if (!other || own === undefined) return [];
    const rows = mine.filter((row) => row.workload === workload);
    const best = rows.reduce((one, two) => (two.values.cost < one.values.cost ? two : one));
    const named = { name: best.subject.slice(target.length + 1), cost: best.values.cost };
    return { workload, other, own, best: named, loop: byName('loop')?.get(workload) };
  });
}

function isOwn(row: ReportRow, target: 'file' | 'null'): boolean {
  const plain = row.kind === 'server' && row.target === target && row.queues === 1;
  return plain && row.varies !== 'scale';
}

function cheapest(lines: readonly CostLine[], workload: string): Best | undefined {
  return lines
    .flatMap(({ name, costs }) => {
      const cost = costs.get(workload);
      return cost === undefined ? [] : { name: name.replace(/^\w+ by /, ''), cost };
    })
    .sort((one, two) => one.cost - two.cost)[0];
}
