import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, onTestFinished, test } from 'vitest';

import { addons } from '../../../scripts/release/addons.ts';
import { isAllowed } from '../../../scripts/release/licences.ts';
import { packages, type Packed } from '../../../scripts/release/pack.ts';
import { versions } from '../../../scripts/release/versions.ts';

test.each([
  ['MIT', true],
  ['MIT OR Apache-2.0', true],
  ['GPL-3.0 OR MIT', true],
  ['Unlicense/MIT', true],
  ['(MIT OR Apache-2.0) AND Unicode-3.0', true],
  ['GPL-3.0', false],
  ['MIT AND GPL-3.0', false],
  ['', false],
])('the licence %j is allowed: %s', (expression, expected) => {
  expect(isAllowed(expression)).toBe(expected);
});

/** A folder as the root of a checkout. */
function root(): string {
  const folder = mkdtempSync(join(tmpdir(), 'ublk-release-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return folder;
}

function packed(name: string, paths: string[], version = '1.0.0'): Packed {
  const files = paths.map((path) => ({ path }));
  return { name, version, files, size: 1, unpackedSize: 2, tarball: '' };
}

test('a version must be the same everywhere, and told', () => {
  const folder = root();
  writeFileSync(join(folder, 'Cargo.toml'), '[workspace.package]\nversion = "1.0.1"\n');
  writeFileSync(join(folder, 'CHANGELOG.md'), '# Changelog\n\n## 0.9.0\n');
  expect(versions(folder, [packed('ublk', []), packed('ublk-arm', [], '0.9.0')])).toEqual([
    'ublk-arm is version 0.9.0, not 1.0.0',
    'Cargo.toml is version 1.0.1, not 1.0.0',
    'CHANGELOG.md says nothing of version 1.0.0',
  ]);
  writeFileSync(join(folder, 'Cargo.toml'), 'version = "1.0.0"\n');
  writeFileSync(join(folder, 'CHANGELOG.md'), '# Changelog\n\n## 1.0.0\n');
  expect(versions(folder, [packed('ublk', [])])).toEqual([]);
});

test('a package that lacks a file, or has a stray one, is named', () => {
  const found = packages('', [
    packed('ublk', ['dist/index.js', '.env', 'native/ublk.linux-x64-gnu.node']),
    packed('ublk-linux-x64-gnu', ['ublk.linux-x64-gnu.node']),
    packed('ublk-linux-arm64-gnu', ['package.json']),
  ]);
  expect(found).toContain('ublk lacks LICENSE-MIT');
  expect(found).not.toContain('ublk lacks dist/index.js');
  expect(found).toContain('ublk has .env');
  expect(found).toContain('ublk has native/ublk.linux-x64-gnu.node');
  expect(found).toContain('ublk-linux-arm64-gnu has no addon: npm run build:platforms');
  expect(found.join()).not.toContain('ublk-linux-x64-gnu has');
});

test('an addon must be for the processor of its package', () => {
  const folder = root();
  const elf = (machine: number): Buffer => {
    const header = Buffer.alloc(64);
    header.write('\x7fELF', 'latin1');
    header.writeUInt16LE(machine, 18);
    return header;
  };
  for (const [platform, bytes] of [
    ['linux-x64-gnu', elf(62)],
    ['linux-arm64-gnu', elf(62)],
    ['linux-arm64-musl', Buffer.from('#!/bin/sh')],
  ] as const) {
    mkdirSync(join(folder, 'npm', platform), { recursive: true });
    writeFileSync(join(folder, 'npm', platform, `ublk.${platform}.node`), bytes);
  }
  mkdirSync(join(folder, 'npm/linux-x64-musl'));
  expect(addons(folder)).toEqual([
    'npm/linux-arm64-gnu/ublk.linux-arm64-gnu.node is for another processor',
    'npm/linux-arm64-musl/ublk.linux-arm64-musl.node is for another processor',
    'npm/linux-x64-musl has no addon: npm run build:platforms',
  ]);
});
