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

import { expect, onTestFinished, test } from 'vitest';

import { makeScratch } from '../../../vm/scratch.ts';

test('of what dead machines left behind, only what nobody else can have planted is removed', async () => {
  const parent = mkdtempSync(join(tmpdir(), 'ublk-scratch-'));
  onTestFinished(() => rmSync(parent, { recursive: true }));
  const namespace = /\d+/.exec(readlinkSync('/proc/self/ns/pid'))![0];
  // No process has this number: the kernel's largest is 2^22.
  const dead = (of: string, name: string): string => join(parent, `ublk-vm-${of}9999999-${name}`);
  const ours = dead(`${namespace}-`, 'ours');
  const open = dead(`${namespace}-`, 'open');
  const link = dead(`${namespace}-`, 'link');
  const container = dead('1-', 'container');
  const unknown = dead('', 'unknown');
  for (const folder of [ours, open, container, unknown]) {
    mkdirSync(folder, { mode: 0o700 });
    writeFileSync(join(folder, 'host.sock'), '');
  }
  chmodSync(open, 0o777);
  symlinkSync(container, link);

  const scratch = await makeScratch(parent);
  expect(existsSync(ours)).toBe(false);
  const kept = [open, link, container, unknown].map((folder) => join(folder, 'host.sock'));
  expect(kept.filter((path) => !existsSync(path))).toEqual([]);
  expect(existsSync(scratch.dir)).toBe(true);
  await scratch[Symbol.asyncDispose]();
  expect(existsSync(scratch.dir)).toBe(false);
});
