// The costs of a report as a grid: a line per subject, a column per workload. Pure.

import { WORKLOADS } from './workloads.ts';
import { REFERENCES } from './references.ts';
import type { Report } from './report.ts';

export interface CostLine {
  name: string;
  /** A static figure of another server (references.ts). */
  reference: boolean;
  costs: ReadonlyMap<string, number>;
}

export interface CostGrid {
  workloads: string[];
  lines: CostLine[];
}

/**
 * The costs of one target's rows with as many queues. Where no other server was measured, what was
 * once measured of one.
 */
export function costGrid(report: Report, target: 'file' | 'null', queues = 1): CostGrid {
  const lines = new Map<string, Map<string, number>>();
  for (const row of report.rows) {
    if (row.target !== target || row.queues !== queues || row.varies) continue;
    const costs = lines.get(row.subject) ?? new Map<string, number>();
    lines.set(row.subject, costs.set(row.workload, row.values.cost));
  }
  const own = [...lines].map(([name, costs]) => ({ name, reference: false, costs }));
  const names = new Set(own.flatMap(({ costs }) => [...costs.keys()]));
  const hasOthers = own.some(({ name }) => name.startsWith(`${target} by `));
  const fit = report.clock === 'instructions' && queues === 1 && own.length > 0 && !hasOthers;
  return {
    workloads: WORKLOADS.map(({ name }) => name).filter((name) => names.has(name)),
    lines: [...own, ...(fit ? references(target) : [])],
  };
}

function references(target: 'file' | 'null'): CostLine[] {
  return REFERENCES.filter((one) => one.target === target).map(({ name, costs }) => ({
    name,
    reference: true,
    costs: new Map(Object.entries(costs)),
  }));
}
