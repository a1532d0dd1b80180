// Counts as a tree of who called whom. Pure.

import type { Stack } from './symbols.ts';

export interface Node {
  name: string;
  /** Its own and all below it. */
  total: number;
  /** How often it is called, where known. */
  calls?: number;
  children: Node[];
}

/** Counts by stack, the frames joined with semicolons: what tools for flame graphs read. */
export type Folded = Map<string, number>;

/** Adds the counts to what `folded` has. */
export function fold<Place>(
  counts: ReadonlyMap<Place, number>,
  stackOf: (place: Place) => Stack,
  folded: Folded = new Map(),
): Folded {
  for (const [place, count] of counts) {
    const key = stackOf(place).join(';');
    folded.set(key, (folded.get(key) ?? 0) + count);
  }
  return folded;
}

/** What the second has more than the first, for each of `ios`. */
export function growth(first: Folded, second: Folded, ios: number): Folded {
  const keys = new Set([...first.keys(), ...second.keys()]);
  const part = (key: string) => ((second.get(key) ?? 0) - (first.get(key) ?? 0)) / ios;
  return new Map([...keys].map((key) => [key, part(key)]));
}

/** `calls` by stack, as `folded`. */
export function toTree(folded: Folded, calls: Folded = new Map()): Node {
  const root: Node = { name: 'all', total: 0, children: [] };
  for (const [key, count] of folded) {
    root.total += count;
    let node = root;
    for (const name of key.split(';')) {
      let child = node.children.find((one) => one.name === name);
      if (!child) node.children.push((child = { name, total: 0, children: [] }));
      child.total += count;
      node = child;
    }
    const called = calls.get(key);
    if (called !== undefined) node.calls = called;
  }
  return root;
}

/** The tree as indented lines, the greatest first, without what is below `least`. */
export function printTree(node: Node, least: number, depth = 0): string[] {
  const children = node.children
    .filter(({ total }) => total >= least)
    .sort((one, other) => other.total - one.total);
  return [
    `${figures(node)}  ${'  '.repeat(depth)}${node.name}`,
    ...children.flatMap((child) => printTree(child, least, depth + 1)),
  ];
}

function figures({ total, calls }: Pick<Node, 'total' | 'calls'>): string {
  return total.toFixed(1).padStart(10) + (calls?.toFixed(2) ?? '').padStart(9);
}

/** What people read: the client and the kernel roughly, the server in detail. */
export function breakdownText(folded: Folded, calls: Folded = new Map()): string {
  const root = toTree(folded, calls);
  const least = (name: string) => ({ server: 4, client: 0 })[name] ?? 40;
  const parts = root.children
    .sort((one, other) => least(one.name) - least(other.name))
    .map((part) => printTree(part, least(part.name)).join('\n'));
  const head = `${'each I/O'.padStart(10)}${'calls'.padStart(9)}`;
  return [head, `${figures(root)}  all`, ...parts].join('\n');
}

/** For flame graph tools: whole numbers, here of instructions per 100 I/Os. */
export function foldedLines(folded: Folded): string[] {
  return [...folded]
    .map(([key, count]) => [key, Math.round(100 * count)] as const)
    .filter(([, count]) => count > 0)
    .sort(([, one], [, other]) => other - one)
    .map(([key, count]) => `${key} ${count}`);
}
