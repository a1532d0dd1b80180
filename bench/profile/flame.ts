// Where a program's own instructions go, as a flame graph: each function as wide as what it and all
// below it cost, the callers at the bottom.

import { type CustomSeriesRenderItem, type EChartsOption, init } from 'echarts';
import { svgOf } from '../svg.ts';
import { type Folded, type Node, toTree } from './tree.ts';

const WIDTH = 1100;
const ROW = 19;
/** Narrower functions are left out. */
const LEAST = 0.004;
const COLOURS = ['#fde68a', '#fcd34d', '#fdba74', '#fca5a5', '#fed7aa', '#fecaca'];

interface Box {
  name: string;
  start: number;
  total: number;
  depth: number;
}

/** Of the stacks that begin with `owner`; others do not show. */
export function flameGraph(folded: Folded, owner: string, title: string): string {
  const own = [...folded].filter(([stack]) => stack.startsWith(`${owner};`));
  const root = toTree(new Map(own.map(([stack, count]) => [plainStack(stack), count])));
  const boxes = boxesOf(root.children[0] ?? root);
  const depth = Math.max(...boxes.map((box) => box.depth)) + 1;
  const total = boxes[0]?.total ?? 1;
  const height = 70 + depth * ROW;
  const chart = init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height });
  const option: EChartsOption = {
    animation: false,
    backgroundColor: '#fff',
    textStyle: { fontFamily: 'Helvetica, Arial, sans-serif' },
    title: { text: title, left: 12, top: 10, textStyle: { fontSize: 15 } },
    grid: { left: 12, right: 12, top: 50, bottom: 12 },
    xAxis: { type: 'value', min: 0, max: total, show: false },
    yAxis: { type: 'value', min: 0, max: depth, show: false },
    series: {
      type: 'custom',
      silent: true,
      renderItem: drawer(boxes),
      data: boxes.map(({ start, depth: level, total: width }) => [start, level, start + width]),
    },
  };
  chart.setOption(option);
  return svgOf(chart);
}

/** Without what the compiler puts around a thread's function. */
function plainStack(stack: string): string {
  const wrapper = /closure|catch_unwind|do_call|call_once|rust_begin_short_backtrace/;
  return stack
    .split(';')
    .filter((name) => !wrapper.test(name))
    .join(';');
}

function boxesOf(root: Node): Box[] {
  const boxes: Box[] = [];
  const add = (node: Node, start: number, depth: number): void => {
    boxes.push({ name: node.name, start, total: node.total, depth });
    let at = start;
    for (const child of node.children.toSorted((one, two) => two.total - one.total)) {
      if (child.total >= LEAST * root.total) add(child, at, depth + 1);
      at += child.total;
    }
  };
  add(root, 0, 0);
  return boxes;
}

function drawer(boxes: readonly Box[]): CustomSeriesRenderItem {
  return ({ dataIndex }, api) => {
    const { name, total } = boxes[dataIndex]!;
    const [left = 0, bottom = 0] = api.coord([api.value(0), api.value(1)]);
    const [right = 0] = api.coord([api.value(2), api.value(1)]);
    const width = Math.max(right - left - 1, 0.5);
    const text = `${name.replaceAll(/\b\w+::(?=\w)/g, '')} ${total.toFixed(0)}`;
    return {
      type: 'rect',
      shape: { x: left, y: bottom - ROW, width, height: ROW - 1 },
      style: { fill: COLOURS[hash(name) % COLOURS.length]! },
      ...(width > 30 && {
        textContent: {
          type: 'text' as const,
          style: { text, fontSize: 11, fill: '#1f2937', width: width - 6, overflow: 'truncate' },
        },
        textConfig: { position: 'insideLeft' as const, distance: 3 },
      }),
    };
  };
}

function hash(text: string): number {
  return [...text].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)!) % 9973, 7);
}
