// Each example, run as its first lines say.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, test } from 'vitest';

const EXAMPLES = resolve(import.meta.dirname, '../../examples');
let dir = '';
let running: ChildProcess[] = [];

beforeEach(async () => {
  dir = await mkdtemp('/var/tmp/ublk-examples-');
  execFileSync('mkfs.ext4', ['-q', join(dir, 'disk.img'), '32m']);
});
afterEach(async () => {
  for (const child of running) child.kill('SIGKILL');
  running = [];
  await rm(dir, { recursive: true });
});

/** An example under way, and its output line by line. */
function start(name: string, ...args: string[]) {
  const command = ['--import', 'tsx', join(EXAMPLES, name), ...args];
  const child = spawn(process.execPath, command, { stdio: ['ignore', 'pipe', 'inherit'] });
  running.push(child);
  const ended = once(child, 'close') as Promise<[number | null, string | null]>;
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => (await lines.next()).value as string;
  return { child, ended, next };
}

async function devices(): Promise<string[]> {
  return (await readdir('/dev')).filter((name) => /^ublk[bc]\d/.test(name));
}

test('serve-image serves until it is told to stop, and tells what it did', async () => {
  const { child, ended, next } = start('serve-image.ts', join(dir, 'disk.img'), '--queues', '2');
  const device = JSON.parse(await next()) as { path: string; size: number; queues: number };
  expect(device).toMatchObject({ size: 32 << 20, queues: 2 });
  execFileSync('e2fsck', ['-f', '-n', device.path]);
  child.kill('SIGTERM');
  const counters = JSON.parse(await next()) as { readBytes: number; errors: number };
  expect(counters.readBytes).toBeGreaterThan(0);
  expect(counters.errors).toBe(0);
  expect(await ended).toEqual([0, null]);
  expect(await devices()).toEqual([]);
});

test('serve-image uses the buffer mode that it is given', async () => {
  const { child, ended, next } = start(
    'serve-image.ts',
    join(dir, 'disk.img'),
    '--buffers',
    'copy',
  );
  expect(JSON.parse(await next())).toMatchObject({ buffers: { mode: 'copy' } });
  child.kill('SIGINT');
  expect(await ended).toEqual([0, null]);
});

test('serve-image fails without an image, and leaves no device', async () => {
  const { ended } = start('serve-image.ts', join(dir, 'missing.img'));
  expect(await ended).toEqual([1, null]);
  expect(await devices()).toEqual([]);
});

test('throwaway-disk has a file system to write to, and leaves nothing', async () => {
  const { ended, next } = start('throwaway-disk.ts');
  const said = await next();
  expect(said).toMatch(/^\/var\/tmp\/disk-\w+\/mnt has \d\d(\.\d)? MiB free$/);
  expect(await ended).toEqual([0, null]);
  expect(existsSync(said.split(' ')[0]!)).toBe(false);
  expect(await devices()).toEqual([]);
});

test('watch shows what clients do', async () => {
  const { child, ended, next } = start('watch.ts', join(dir, 'disk.img'));
  const path = (await next()).split(':')[0]!;
  expect(execFileSync('blockdev', ['--getro', path], { encoding: 'utf8' })).toBe('1\n');
  execFileSync('dd', [`if=${path}`, 'of=/dev/null', 'bs=1M', 'status=none']);
  let seen = '';
  while (!/^[1-9]\d* reads\/s, \d/.test(seen)) seen = await next();
  child.kill('SIGINT');
  expect(await ended).toEqual([0, null]);
  expect(await devices()).toEqual([]);
});
