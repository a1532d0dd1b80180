// Counts words that stand for a noun in comments and documents, per folder: readers look up what each
// of them means. CONTRIBUTING.md names the aim. Nothing fails.
//
//   npx tsx scripts/prose.ts                 every folder of the checkout
//   npx tsx scripts/prose.ts src docs/guides these, and their worst files

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';

import { countIn, sum, type Count } from './prose/count.ts';

const WORST_FILES = 8;
/** Files with fewer words have no rate that says anything. */
const ENOUGH_WORDS = 80;

const asked = process.argv.slice(2);
const pattern = ['*.ts', '*.mjs', '*.rs', '*.md', '*.sh'];
const listed = execFileSync('git', ['ls-files', '--', ...(asked.length > 0 ? asked : pattern)]);
const files = listed.toString().split('\n').filter(isProse);
const counts = new Map(files.map((file) => [file, countIn(readFileSync(file, 'utf8'), file)]));

const folders = new Map<string, Count[]>();
for (const [file, count] of counts) {
  folders.set(dirname(file), [...(folders.get(dirname(file)) ?? []), count]);
}
print([...folders].map(([folder, all]) => [folder, sum(all)]));
if (asked.length > 0) print([...counts], WORST_FILES);
print([['all', sum([...counts.values()])]]);

function isProse(file: string): boolean {
  return /\.(ts|mjs|rs|md|sh)$/.test(file) && !file.startsWith('docs/benchmarks/');
}

/** The worst first. */
function print(rows: readonly (readonly [name: string, count: Count])[], most = Infinity): void {
  const told = rows.filter(([, { words }]) => words >= ENOUGH_WORDS);
  const sorted = told.toSorted(([, a], [, b]) => rate(b) - rate(a)).slice(0, most);
  console.log('\npronouns  idioms   words  per 1,000 words');
  for (const [name, count] of sorted) {
    const idioms = ((count.idioms * 1000) / count.words).toFixed(1);
    const columns = [rate(count).toFixed(0).padStart(8), idioms.padStart(7)];
    console.log(`${columns.join(' ')} ${String(count.words).padStart(7)}  ${name}`);
  }
}

function rate({ pronouns, words }: Count): number {
  return (pronouns * 1000) / words;
}
