import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { modules } from '../../../src/cli/installed.ts';
import { changeableByOthers } from '../../../src/cli/trusted.ts';

const isRoot = process.getuid?.() === 0;

// Only root can make a folder below folders that only root can change.
describe.runIf(isRoot)('below a folder of root', () => {
  let dir = '';

  beforeEach(() => {
    dir = mkdtempSync('/run/ublk-trusted-');
    mkdirSync(join(dir, 'package/deep'), { recursive: true });
    writeFileSync(join(dir, 'package/deep/main.js'), '');
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  test('what only root can change is trusted', () => {
    symlinkSync('main.js', join(dir, 'package/deep/link.js'));
    expect(changeableByOthers(join(dir, 'package'))).toBeUndefined();
    expect(changeableByOthers(join(dir, 'package/deep/main.js'))).toBeUndefined();
  });

  test('a folder above that another user can write is not trusted', () => {
    chmodSync(dir, 0o777);
    expect(changeableByOthers(join(dir, 'package'))).toBe(dir);
  });

  test('a file deep below that another user owns, or its group can write, is not trusted', () => {
    const file = join(dir, 'package/deep/main.js');
    chownSync(file, 1000, 0);
    expect(changeableByOthers(join(dir, 'package'))).toBe(file);
    chownSync(file, 0, 0);
    chmodSync(file, 0o664);
    expect(changeableByOthers(join(dir, 'package'))).toBe(file);
  });
});

test('of a checkout, what the program loads is looked at, and not what development needs', () => {
  const root = mkdtempSync('/tmp/ublk-modules-');
  try {
    const manifest = (folder: string, dependencies?: object): void => {
      mkdirSync(join(root, folder), { recursive: true });
      writeFileSync(join(root, folder, 'package.json'), JSON.stringify({ dependencies }));
    };
    manifest('', { '@scope/direct': '1', nested: '1' });
    manifest('dist');
    manifest('node_modules/@scope/direct', { indirect: '1', missing: '1' });
    manifest('node_modules/indirect', { '@scope/direct': '1' });
    manifest('node_modules/nested', { within: '1' });
    manifest('node_modules/nested/node_modules/within');
    manifest('node_modules/development');
    const modulesOf = ['@scope/direct', 'indirect', 'nested'];
    const expected = ['package.json', 'dist', ...modulesOf.map((name) => `node_modules/${name}`)];
    expect(modules(root)).toEqual(expected.map((part) => join(root, part)));
    expect(modules(join(root, 'node_modules/ublk'))).toEqual([join(root, 'node_modules')]);
  } finally {
    rmSync(root, { recursive: true });
  }
});

test('a path in a temporary directory that all users can write is not trusted', () => {
  const shared = mkdtempSync('/tmp/ublk-trusted-');
  expect(changeableByOthers(shared)).toBeDefined();
  rmSync(shared, { recursive: true });
});
