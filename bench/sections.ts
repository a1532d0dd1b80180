// The report's chapters about where the server stands, and why. Pure.

import type { Report, ReportRow } from './report.ts';
import { standings } from './standing.ts';
import { DEFAULT_MODE, queuesText } from './subjects.ts';
import { costName, markdownTable, percent, thousands, times } from './text.ts';

/** A heading, and what is below it; empty when the report has no figures for it. */
export type Section = string[];

/** Beside the best of the other servers, and the kernel's loop driver. */
export function standingSection(report: Report): Section {
  const parts = (['file', 'null'] as const).flatMap((target) => {
    const lines = standings(report, target);
    if (lines.length === 0) return [];
    const cells = lines.map(({ workload, other, own, best, loop }) => [
      workload,
      `${thousands(other.cost)} (${other.name})`,
      thousands(own),
      times(own / other.cost),
      `${thousands(best.cost)} (${best.name})`,
      times(best.cost / other.cost),
      loop === undefined ? '' : thousands(loop),
    ]);
    const own = [`this, no options (${DEFAULT_MODE})`, 'ratio', 'this, best options', 'ratio'];
    return [markdownTable([target, 'best other', ...own, 'kernel loop'], cells)];
  });
  return parts.length === 0 ? [] : ['## Beside the best of the other servers', ...parts];
}

/** What this server does more, or less, than the kernel's loop driver. */
export function separationSection({ breakdowns = [] }: Report): Section {
  const workloads = new Set(breakdowns.map(({ workload }) => workload));
  const parts = [...workloads].flatMap((workload) => {
    const of = (name: string) =>
      breakdowns.find((one) => one.workload === workload && one.subject === name)?.areas;
    const [loop, own] = [of('loop'), of(`file ${DEFAULT_MODE}`)];
    return loop && own ? [`**${workload}**`, separation(loop, own)] : [];
  });
  const text =
    'The same I/Os under a profiler, by what the functions that ran are for (client and server ' +
    'in the same columns: what both sides of the device spend).';
  return parts.length === 0 ? [] : ['## What separates this server from loop', text, ...parts];
}

/** Areas of fewer instructions are left out. */
const LEAST = 10;

type Areas = Readonly<Record<string, number>>;

function separation(loop: Areas, own: Areas): string {
  const names = [...new Set([...Object.keys(own), ...Object.keys(loop)])];
  const lines = names
    .map((name) => ({ name, one: loop[name] ?? 0, two: own[name] ?? 0 }))
    .filter(({ one, two }) => Math.max(one, two) >= LEAST)
    .toSorted((a, b) => b.two - b.one - (a.two - a.one));
  const sum = (areas: Areas) => Object.values(areas).reduce((total, part) => total + part, 0);
  lines.push({ name: 'all', one: sum(loop), two: sum(own) });
  return markdownTable(
    ['instructions per I/O', 'loop', 'this', 'more'],
    lines.map(({ name, one, two }) => [
      name,
      thousands(Math.max(one, 0)),
      thousands(Math.max(two, 0)),
      signed(two - one),
    ]),
  );
}

function signed(value: number): string {
  return `${value < 0 ? '−' : '+'}${thousands(Math.abs(value))}`;
}

const VARIED = [
  [
    'settings',
    'Options',
    'One option each, or several; the rest as in what it stands against. "On both disks": the disk behind has the same queue settings.',
  ],
  [
    'scale',
    'Scale',
    'The same load of one client throughout. Devices share one reactor, and each I/O goes to the ' +
      'next of them.',
  ],
  [
    'overlays',
    'Copy-on-write disks',
    'Over ext4, against a file of the same file system: blocks that lie in the base, in the one layer, in ' +
      '64 layers; and first writes, against first writes into a sparse file. Disks of others on the same files: ' +
      'dm-snapshot over two loop devices, with chunks of 4 KiB that are not kept, and a qcow2 image over qemu-nbd.',
  ],
  [
    'handlers',
    'Handlers',
    'Requests answered in JavaScript, against the native target in the same buffer mode: `sync` ' +
      'returns at once, `async` a promise, `worker` is `sync` in a worker thread, `map` says ' +
      'where the bytes are.',
  ],
] as const;

/** Options, scale, overlays, handlers. */
export function variantSections(report: Report): Section {
  return VARIED.flatMap(([varies, title, text]) => {
    const rows = report.rows.filter((row) => row.varies === varies);
    if (rows.length === 0) return [];
    const cells = rows.map((row) => [
      `${row.subject}, ${queuesText(row.queues)}`,
      row.workload,
      thousands(row.values.cost),
      row.against ? percent(row.against.ratio - 1) : '',
      row.values.memoryKiB === undefined ? '' : thousands(row.values.memoryKiB),
      memoryPerDevice(row, report),
    ]);
    const head = ['', 'workload', costName(report), 'more', 'RSS KiB', 'KiB per device more'];
    return [`## ${title}`, text, markdownTable(head, cells)];
  });
}

/** What each device but the first adds to the process's memory. */
function memoryPerDevice({ devices = 1, values, against }: ReportRow, { rows }: Report): string {
  const one = rows.find(({ id }) => id === against?.id)?.values.memoryKiB;
  if (devices < 2 || one === undefined || values.memoryKiB === undefined) return '';
  return ((values.memoryKiB - one) / (devices - 1)).toFixed(1);
}
