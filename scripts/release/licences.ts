// The licences of what is published with the package: npm's dependencies, and the crates in the addon.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { execa } from 'execa';

/** Licences that allow what ours allow. */
const ALLOWED: readonly string[] = [
  '0BSD',
  'Apache-2.0',
  'Apache-2.0 WITH LLVM-exception',
  'BSD-2-Clause',
  'BSD-3-Clause',
  // Of data: Mozilla's list of authorities, in webpki-roots.
  'CDLA-Permissive-2.0',
  'ISC',
  'MIT',
  'Unicode-3.0',
  'Unlicense',
  'Zlib',
];

/** Names dependencies whose licence is another. */
export async function licences(root: string): Promise<string[]> {
  const all = [...npmLicences(root), ...(await crateLicences(root))];
  return all
    .filter(([, licence]) => !isAllowed(licence))
    .map(([name, licence]) => `${name} has the licence ${licence || '(none)'}`);
}

/** Whether one of the alternatives of an SPDX expression is allowed, as far as such expressions go here. */
export function isAllowed(expression: string): boolean {
  const alternatives = expression.replaceAll('/', ' OR ').split(/ OR /);
  return alternatives.some((one) =>
    one.split(/ AND /).every((part) => ALLOWED.includes(part.replaceAll(/[()]/g, '').trim())),
  );
}

function npmLicences(root: string): [name: string, licence: string][] {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean; optional?: boolean; license?: string }>;
  };
  return Object.entries(lock.packages)
    .filter(([path, { dev }]) => path !== '' && !dev)
    .map(([path, { license = '' }]) => [path.replace(/^.*node_modules\//, ''), license]);
}

async function crateLicences(root: string): Promise<[name: string, licence: string][]> {
  // Build dependencies and those of tests are in no addon.
  const tree = ['tree', '-p', 'ublk-node', '-e', 'normal', '--prefix', 'none', '-f', '{p}\t{l}'];
  const { stdout } = await execa('cargo', tree, { cwd: root });
  const lines = new Set(stdout.split('\n').filter((line) => line.includes('\t')));
  return [...lines].map((line) => {
    const [name = '', licence = ''] = line.split('\t');
    return [name, licence.replace(' (*)', '')];
  });
}
