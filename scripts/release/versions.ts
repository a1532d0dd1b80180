// One version everywhere.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import type { Packed } from './pack.ts';

/** Compares the versions of all manifests, and looks for the version's section in the CHANGELOG. */
export function versions(root: string, packed: readonly Packed[]): string[] {
  const [{ version } = { version: '' }] = packed;
  const cargo = /^version = "(.*)"/m.exec(readFileSync(join(root, 'Cargo.toml'), 'utf8'))?.[1];
  const others = packed.filter((one) => one.version !== version);
  const changes = readFileSync(join(root, 'CHANGELOG.md'), 'utf8');
  const isTold = changes.includes(`\n## ${version}`) || changes.includes('\n## Unreleased');
  return [
    ...others.map((one) => `${one.name} is version ${one.version}, not ${version}`),
    ...(cargo === version ? [] : [`Cargo.toml is version ${cargo}, not ${version}`]),
    ...(isTold ? [] : [`CHANGELOG.md says nothing of version ${version}`]),
  ];
}
