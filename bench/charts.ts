// The report's charts, drawn by ECharts as SVG. No browser, no time of day: the same report gives
// the same bytes.

import { type EChartsOption, init } from 'echarts';
import { type CostGrid, type CostLine, costGrid } from './costs.ts';
import type { Report } from './report.ts';
import { svgOf } from './svg.ts';
import { costName, thousands } from './text.ts';

export interface Chart {
  file: string;
  title: string;
  svg: string;
}

interface Plan {
  file: string;
  title: string;
  target: 'file' | 'null';
  workloads: readonly string[];
}

const PLANS: readonly Plan[] = [
  ...[32, 1, 128].map((depth) => ({
    file: `4k-qd${depth}.svg`,
    title: `4k random, ${depth} in flight`,
    target: 'file' as const,
    workloads: [`4k randread qd${depth}`, `4k randwrite qd${depth}`],
  })),
  ...['64k', '1M'].map((size) => ({
    file: `${size}-qd8.svg`,
    title: `${size} sequential, 8 in flight`,
    target: 'file' as const,
    workloads: [`${size} read qd8`, `${size} write qd8`],
  })),
  {
    file: 'null.svg',
    title: 'Nothing behind it: 4k random reads',
    target: 'null',
    workloads: ['4k randread qd1', '4k randread qd32', '4k randread qd128'],
  },
];

const WIDTH = 860;
const STRONG = ['#2563eb', '#f59e0b', '#10b981'];
/** For references. */
const PALE = ['#a8c1f7', '#fbd89d', '#9fe3cd'];

/** Those charts that the report has rows for. */
export function drawCharts(report: Report): Chart[] {
  return PLANS.flatMap(({ file, title, target, workloads }) => {
    const grid = narrow(costGrid(report, target), workloads);
    if (grid.lines.every(({ reference }) => reference)) return [];
    return { file, title, svg: draw(grid, `${title}: ${costName(report)}, less is better`) };
  });
}

function narrow({ lines }: CostGrid, workloads: readonly string[]): CostGrid {
  const names = workloads.filter((name) => lines.some(({ costs }) => costs.has(name)));
  return { workloads: names, lines: lines.filter(({ costs }) => names.some((n) => costs.has(n))) };
}

function draw({ workloads, lines }: CostGrid, title: string): string {
  const height = 90 + lines.length * (10 + 15 * workloads.length);
  const chart = init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height });
  const option: EChartsOption = {
    animation: false,
    backgroundColor: '#fff',
    color: STRONG,
    textStyle: { fontFamily: 'Helvetica, Arial, sans-serif' },
    title: { text: title, left: 12, top: 10, textStyle: { fontSize: 15 } },
    legend: { top: 34, left: 12, itemGap: 36, data: [...workloads] },
    grid: { left: 190, right: 80, top: 66, bottom: 16 },
    xAxis: { type: 'value', axisLabel: { show: false } },
    yAxis: { type: 'category', inverse: true, data: lines.map(lineName) },
    series: workloads.map((workload, index) => ({
      name: workload,
      type: 'bar' as const,
      barMaxWidth: 13,
      silent: true,
      emphasis: { disabled: true },
      data: lines.map((line) => bar(line, workload, index)),
      label: {
        show: true,
        position: 'right' as const,
        fontSize: 10,
        formatter: ({ value }: { value?: unknown }) =>
          typeof value === 'number' ? thousands(value) : '',
      },
    })),
  };
  chart.setOption(option);
  return svgOf(chart);
}

/** References are marked, and paler. */
function lineName({ name, reference }: CostLine): string {
  return reference ? `${name} †` : name;
}

function bar({ costs, reference }: CostLine, workload: string, index: number) {
  const value = costs.get(workload) ?? '-';
  return reference ? { value, itemStyle: { color: PALE[index]! } } : value;
}
