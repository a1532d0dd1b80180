// What npm would publish.

import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { execa } from 'execa';

/** A package as npm packs it. */
export interface Packed {
  readonly name: string;
  readonly version: string;
  /** In bytes. */
  readonly size: number;
  readonly unpackedSize: number;
  readonly files: readonly { readonly path: string }[];
  /** The path of the archive. */
  readonly tarball: string;
}

/** The folders of the packages: the root, then the platforms. */
export function folders(root: string): string[] {
  const platforms = readdirSync(join(root, 'npm'), { withFileTypes: true });
  const names = platforms.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  return [root, ...names.sort().map((name) => join(root, 'npm', name))];
}

/** Packs all packages into the temporary directory. */
export async function pack(root: string): Promise<Packed[]> {
  const all: Packed[] = [];
  for (const cwd of folders(root)) {
    const args = ['pack', '--json', '--pack-destination', tmpdir()];
    const { stdout } = await execa('npm', args, { cwd });
    // The scripts of the root package print lines of their own.
    const [one] = JSON.parse(stdout.slice(stdout.indexOf('[\n'))) as (Packed & {
      filename: string;
    })[];
    all.push({ ...one!, tarball: join(tmpdir(), one!.filename) });
  }
  return all;
}

const NEEDED: readonly string[] = [
  'bin/ublk',
  'CHANGELOG.md',
  'dist/index.d.ts',
  'dist/index.js',
  'dist/testing/index.js',
  'LICENSE-APACHE',
  'LICENSE-MIT',
  'man/ublk.1',
  'native/binding.cjs',
  'native/binding.d.cts',
  'package.json',
  'README.md',
];
/** What belongs into no package. */
const STRAY = /(^|\/)(node_modules|target|__test__|\.[^/]+)(\/|$)|\.(rs|toml|log|img|node)$/;

/** Looks at the lists of files. */
export function packages(_root: string, [first, ...platforms]: readonly Packed[]): string[] {
  const paths = new Set(first!.files.map(({ path }) => path));
  const missing = NEEDED.filter((path) => !paths.has(path));
  const stray = first!.files.filter(({ path }) => STRAY.test(path));
  const bare = platforms.filter(({ files }) => !files.some(({ path }) => path.endsWith('.node')));
  return [
    ...missing.map((path) => `${first!.name} lacks ${path}`),
    ...stray.map(({ path }) => `${first!.name} has ${path}`),
    ...bare.map(({ name }) => `${name} has no addon: npm run build:platforms`),
  ];
}
