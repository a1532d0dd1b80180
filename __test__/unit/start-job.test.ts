import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Watch, checksums, copyFiles } from '../../scripts/start/job/files.ts';
import { run } from '../../scripts/start/job/run.ts';
import { listFiles } from '../../scripts/start/tree.ts';

let dir = '';
let shares: number[] = [];
const watch: Watch = {
  signal: new AbortController().signal,
  progress: (share) => void shares.push(share),
};

beforeEach(async () => {
  shares = [];
  dir = await mkdtemp(join(tmpdir(), 'ublk-job-'));
  await writeFile(join(dir, 'abc'), 'abc');
  await writeFile(join(dir, 'large'), Buffer.alloc(3 << 20, 7));
});
afterEach(() => rm(dir, { recursive: true }));

test('copied files have the same checksums, until one byte is another', async () => {
  const files = await listFiles([{ from: dir, to: 'deep/er' }]);
  const target = join(dir, 'target');
  await copyFiles(files, target, watch);
  const copies = files.map(({ to, bytes }) => ({ from: join(target, to), to, bytes }));
  const sums = await checksums(files, watch);
  expect(await checksums(copies, watch)).toEqual(sums);
  expect(sums).toContain('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');

  const large = join(target, 'deep/er/large');
  const bytes = await readFile(large);
  bytes[2 << 20] = 8;
  await writeFile(large, bytes);
  expect(await checksums(copies, watch)).not.toEqual(sums);
  expect(shares.at(-1)).toBe(1);
});

test('an abort ends the work', async () => {
  const signal = AbortSignal.abort(new Error('enough'));
  const files = await listFiles([{ from: dir, to: '.' }]);
  await expect(checksums(files, { ...watch, signal })).rejects.toThrow('enough');
});

test('a program’s output is returned; its failure tells the status and what it said', async () => {
  expect(await run('echo', ['a b'])).toBe('a b\n');
  await expect(run('sh', ['-c', 'echo no >&2; exit 3'])).rejects.toThrow(/status 3: no/);
  await expect(run('no-such-program', [])).rejects.toThrow(/not installed/);
});

test('an abort ends the program and is the reason told', async () => {
  const controller = new AbortController();
  const sleeping = run('sleep', ['60'], controller.signal);
  controller.abort(new Error('enough'));
  await expect(sleeping).rejects.toThrow('enough');
});
