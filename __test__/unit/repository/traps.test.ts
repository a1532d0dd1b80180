import { readdirSync, readFileSync } from 'node:fs';

import { expect, test } from 'vitest';

const LIST = readFileSync('docs/kernel-traps.md', 'utf8');

/** The numbers of the traps that a text cites: "trap 1", "traps 9 to 12", `fn trap_23_…`. */
function cited(text: string): string[] {
  const places = text.match(/\btraps? \d+((, | and | to )\d+)*|\btrap_\d+/g) ?? [];
  return places.flatMap((place) => place.match(/\d+/g) ?? []);
}

test('each kernel trap that the code cites is in docs/kernel-traps.md, once', () => {
  const files = readdirSync('crates', { recursive: true, encoding: 'utf8' });
  const sources = files.filter((name) => name.endsWith('.rs'));
  const numbers = sources.flatMap((name) => cited(readFileSync(`crates/${name}`, 'utf8')));
  expect(numbers.length).toBeGreaterThan(50);
  const listed = [...LIST.matchAll(/^- \*\*(\d+)\. /gm)].map(([, number]) => number);
  expect(new Set(listed).size).toBe(listed.length);
  expect(listed).toEqual(expect.arrayContaining([...new Set(numbers)]));
});
