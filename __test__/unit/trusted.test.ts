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

import { afterEach, beforeEach, expect, test } from 'vitest';

import { changeableByOthers } from '../../src/cli/trusted.ts';

// Below a folder that only root can change, which needs root to make.
const asRoot = test.runIf(process.getuid?.() === 0);
let dir = '';

beforeEach(() => {
  dir = process.getuid?.() === 0 ? mkdtempSync('/run/ublk-trusted-') : '';
  if (dir === '') return;
  mkdirSync(join(dir, 'package/deep'), { recursive: true });
  writeFileSync(join(dir, 'package/deep/main.js'), '');
});
afterEach(() => rmSync(dir || '/nonexistent', { recursive: true, force: true }));

asRoot('what only root can change is trusted', () => {
  symlinkSync('main.js', join(dir, 'package/deep/link.js'));
  expect(changeableByOthers(join(dir, 'package'))).toBeUndefined();
  expect(changeableByOthers(join(dir, 'package/deep/main.js'))).toBeUndefined();
});

asRoot('a folder above that somebody else can write is not', () => {
  chmodSync(dir, 0o777);
  expect(changeableByOthers(join(dir, 'package'))).toBe(dir);
});

asRoot('nor a file deep in it that somebody else owns, or whose group can write', () => {
  const file = join(dir, 'package/deep/main.js');
  chownSync(file, 1000, 0);
  expect(changeableByOthers(join(dir, 'package'))).toBe(file);
  chownSync(file, 0, 0);
  chmodSync(file, 0o664);
  expect(changeableByOthers(join(dir, 'package'))).toBe(file);
});

test('nor what lies in a temporary directory of all', () => {
  const shared = mkdtempSync('/tmp/ublk-trusted-');
  expect(changeableByOthers(shared)).toBeDefined();
  rmSync(shared, { recursive: true });
});
