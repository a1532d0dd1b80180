// Counts as a tree of who called whom. Pure.

import type { Stack } from './symbols.ts';

export interface Node {
  name: string;
  /** Its own and all below it. */
  total: number;
  children: Node[];
}

/** Counts by stack, the frames joined with semicolons: what tools for flame graphs read. */
export type Folded = Map<string, number>;

export function fold<Place>(
  counts: ReadonlyMap<Place, number>,
  stackOf: (place: Place) => Stack,
): Folded {
  const folded: Folded = new Map();
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

export function toTree(folded: Folded): Node {
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
  }
  return root;
}

/** The tree as indented lines, the greatest first, without what is below `least`. */
export function printTree(node: Node, least: number, depth = 0): string[] {
  const children = node.children
    .filter(({ total }) => total >= least)
    .sort((one, other) => other.total - one.total);
  return [
    `${node.total.toFixed(1).padStart(10)}  ${'  '.repeat(depth)}${node.name}`,
    ...children.flatMap((child) => printTree(child, least, depth + 1)),
  ];
}

/** What people read: the client and the kernel roughly, the server in detail. */
export function breakdownText(folded: Folded): string {
  const root = toTree(folded);
  const least: Record<string, number> = { server: 4, kernel: 40 };
  const parts = root.children
    .sort((one, other) => (least[one.name] ?? 0) - (least[other.name] ?? 0))
    .map((part) => printTree(part, least[part.name] ?? 0).join('\n'));
  return [`${root.total.toFixed(1).padStart(10)}  all`, ...parts].join('\n');
}

/** For flame graph tools: whole numbers, here of instructions per 100 I/Os. */
export function foldedLines(folded: Folded): string[] {
  return [...folded]
    .map(([key, count]) => [key, Math.round(100 * count)] as const)
    .filter(([, count]) => count > 0)
    .sort(([, one], [, other]) => other - one)
    .map(([key, count]) => `${key} ${count}`);
}
