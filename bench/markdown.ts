// The report that people read.

import { type Chart, drawCharts } from './charts.ts';
import type { Flame } from './breakdowns.ts';
import { type CostGrid, costGrid } from './costs.ts';
import { queuesText } from './subjects.ts';
import { REFERENCE_NOTE } from './references.ts';
import type { Report, ReportRow } from './report.ts';
import { columns } from './table.ts';
import { separationSection, standingSection, variantSections } from './sections.ts';
import { costName, markdownTable, thousands } from './text.ts';

const COUNTED = `Instructions are counted by an emulated machine whose clock ticks one nanosecond per
instruction, so \`1e9 / IOPS\` is what client, kernel and server together spend on one I/O. It
repeats at every run, whatever else the host does; fio's clock of milliseconds makes it grainy (a
quarter to half a percent). It is no time: cache misses and memory bandwidth count for nothing, and
large copies cost more in life than here. Latencies are of that same clock.`;

const TIMED = `Real time, each row measured several times in turn with the others; the figures are
of the round of median cost, ± is half the distance between the fastest and the slowest. CPU time is the whole machine's.`;

const SETTINGS = `- **Client**: fio with \`ioengine=io_uring direct=1 size=256M\`, its random map on, one client (in
  real time one per queue), each row warmed up in the same fio with a tenth of its I/Os. Requests above 4k lie in huge
  pages (\`iomem=mmaphuge\`): chance would decide otherwise how many pieces they are in.
- **raw**: a memory-backed null_blk (\`queue_mode=2 irqmode=0 submit_queues=2 blocksize=512\`), filled.
- **loop**: the kernel's own loop driver over it, with direct I/O.
- **file**: this project over it: queues of depth 128, no option set but those in the row's name, the
  buffer mode (\`split\` is \`register\` in separate calls) and the exchange.
- **null_blk**, **null**: devices that keep nothing, the kernel's and this project's.
- **Server**: one process per device that runs the very Rust data path which the npm package loads
  into Node, without Node, whose start takes minutes of counted time.`;

/** The whole text; the charts lie beside it. */
export function markdownReport(
  report: Report,
  charts: readonly Chart[] = drawCharts(report),
  flames: readonly Flame[] = [],
): string {
  return [
    '# What an I/O costs',
    '<!-- Made by `npm run bench`. Do not edit. -->',
    circumstances(report),
    ...charts.map(({ file, title }) => `![${title}](${file})`),
    ...standingSection(report),
    ...gridSections(report),
    ...separationSection(report),
    ...flames.map(({ file, title }) => `![${title}](${file})`),
    ...variantSections(report),
    '## Every row',
    rowTable(report),
    '## Method',
    report.clock === 'instructions' ? COUNTED : TIMED,
    SETTINGS,
    'More in `bench/README.md`.',
    '',
  ].join('\n\n');
}

function circumstances({ date, commit, kernel, fio, machine, rounds }: Report): string {
  return [
    `- Commit ${commit}, measured ${date}`,
    `- Linux ${kernel}, ${fio}`,
    `- ${machine}${rounds > 1 ? `, ${rounds} rounds` : ''}`,
  ].join('\n');
}

function gridSections(report: Report): string[] {
  const sections = [
    ['Over a disk in memory, one queue', costGrid(report, 'file')],
    ['Over a disk in memory, two queues', costGrid(report, 'file', 2)],
    ['Nothing behind it, one queue', costGrid(report, 'null')],
    ['Nothing behind it, two queues', costGrid(report, 'null', 2)],
  ] as const;
  const texts = sections.flatMap(([title, grid]) =>
    grid.lines.length === 0 ? [] : [`## ${title}`, `In ${costName(report)}:`, gridTable(grid)],
  );
  const dagger = sections.some(([, { lines }]) => lines.some(({ reference }) => reference));
  return dagger ? [...texts, `† ${REFERENCE_NOTE}.`] : texts;
}

function gridTable({ workloads, lines }: CostGrid): string {
  return markdownTable(
    ['', ...workloads],
    lines.map(({ name, reference, costs }) => [
      reference ? `${name} †` : name,
      ...workloads.map((workload) => {
        const cost = costs.get(workload);
        return cost === undefined ? '' : thousands(cost);
      }),
    ]),
  );
}

function rowTable(report: Report): string {
  const all = columns(report);
  const name = ({ subject, queues, workload }: ReportRow) =>
    `${subject}, ${queuesText(queues)}, ${workload}`;
  return markdownTable(
    ['', ...all.map(([heading]) => heading)],
    report.rows.map((row) => [name(row), ...all.map(([, value]) => value(row))]),
  );
}
