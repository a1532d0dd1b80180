import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Watch, checksums, copyFiles } from '../../../scripts/start/job/files.ts';
import { run } from '../../../scripts/start/job/run.ts';
import { listFiles } from '../../../scripts/start/tree.ts';

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

test('checksums come in the order of the files, however many', async () => {
  const names = Array.from({ length: 50 }, (_, i) => `n${i}`);
  await Promise.all(names.map((name, i) => writeFile(join(dir, name), 'x'.repeat(i * 997))));
  const files = names.map((name) => ({ from: join(dir, name), to: name, bytes: 1 }));
  const sums = await checksums(files, watch);
  const expected = await Promise.all(
    files.map(async ({ from }) =>
      createHash('sha256')
        .update(await readFile(from))
        .digest('hex'),
    ),
  );
  expect(sums).toEqual(expected);
});

test('one file that cannot be read ends the work, with nothing going on behind it', async () => {
  const good = { from: join(dir, 'large'), to: 'large', bytes: 1 };
  const files = [
    { ...good, from: join(dir, 'missing') },
    ...Array.from({ length: 20 }, () => good),
  ];
  await expect(checksums(files, watch)).rejects.toThrow(/ENOENT/);
  expect(shares.length).toBeLessThan(10);
  const told = shares.length;
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(shares.length).toBe(told);
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
