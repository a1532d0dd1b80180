import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { openWorkspace } from '../../../scripts/start/job/workspace.ts';

test('of what dead jobs left behind, only what nobody else can have planted is removed', async () => {
  const parent = mkdtempSync(join(tmpdir(), 'ublk-workspace-'));
  const precious = join(parent, 'precious');
  mkdirSync(join(precious, 'mnt'), { recursive: true });
  writeFileSync(join(precious, 'file'), '');
  const namespace = /\d+/.exec(readlinkSync('/proc/self/ns/pid'))![0];
  // No process has this number: the kernel's largest is 2^22.
  const dead = (name: string): string => join(parent, `ublk-start-${namespace}-9999999-${name}`);
  mkdirSync(dead('ours'), { mode: 0o700 });
  symlinkSync('/', join(dead('ours'), 'mnt'));
  mkdirSync(dead('open'));
  chmodSync(dead('open'), 0o777);
  symlinkSync(precious, dead('link'));
  const elsewhere = join(parent, 'ublk-start-1-9999999-container');
  mkdirSync(elsewhere, { mode: 0o700 });
  const kept = [dead('open'), dead('link'), elsewhere, join(precious, 'file')];

  const workspace = await openWorkspace({ folder: parent }, new AbortController().signal);
  expect(existsSync(dead('ours'))).toBe(false);
  expect(kept.filter((path) => !existsSync(path))).toEqual([]);
  await workspace[Symbol.asyncDispose]();
  rmSync(parent, { recursive: true });
});
