// `npm run release -- --dry-run`: looks at all that would be published, and publishes nothing. The workflow
// .github/workflows/release.yml runs it before it publishes.

import { rmSync } from 'node:fs';
import { join } from 'node:path';

import { addons } from './release/addons.ts';
import { licences } from './release/licences.ts';
import { pack, packages, type Packed } from './release/pack.ts';
import { types } from './release/types.ts';
import { versions } from './release/versions.ts';

/** What is wrong with a release, in words; nothing if nothing is. */
export type Check = (root: string, packed: readonly Packed[]) => Promise<string[]> | string[];

const CHECKS: readonly (readonly [what: string, check: Check])[] = [
  ['versions and CHANGELOG', versions],
  ['addons of all platforms', addons],
  ['packages', packages],
  ['types and exports', types],
  ['licences of dependencies', licences],
];

const args = process.argv.slice(2);
if (args.length !== 1 || args[0] !== '--dry-run') {
  console.error('error: only --dry-run; the workflow of a tag publishes');
  process.exit(2);
}

const root = join(import.meta.dirname, '..');
const packed = await pack(root);
let problems = 0;
try {
  for (const [what, check] of CHECKS) {
    const found = await check(root, packed);
    problems += found.length;
    console.log(`${found.length === 0 ? 'ok  ' : 'FAIL'} ${what}`);
    for (const problem of found) console.log(`     ${problem}`);
  }
} finally {
  for (const { tarball } of packed) rmSync(tarball, { force: true });
}
for (const { name, version, size, unpackedSize, files } of packed) {
  const [kB, unpacked] = [size, unpackedSize].map((bytes) => Math.round(bytes / 1000));
  console.log(
    `${name}@${version}: ${files.length} files, ${kB} kB packed, ${unpacked} kB unpacked`,
  );
}
process.exitCode = problems === 0 ? 0 : 1;
