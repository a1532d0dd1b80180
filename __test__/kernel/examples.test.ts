// Each example, run as its first lines say.

import { type ChildProcess, execFile, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  createReadStream,
  existsSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';

import { folderOfTests } from './image.ts';

const PACKAGE = resolve(import.meta.dirname, '../..');
const EXAMPLES = join(PACKAGE, 'examples');
const KEY = '01'.repeat(32) + '23'.repeat(32);
let dir = '';
let running: ChildProcess[] = [];

/** The examples in JavaScript, beside a `node_modules` that has this package. */
const compiled = folderOfTests();
beforeAll(async () => {
  mkdirSync(join(compiled, 'node_modules'));
  symlinkSync(PACKAGE, join(compiled, 'node_modules/ublk'));
  const names = (await readdir(EXAMPLES)).filter((name) => /^[\w-]+\.ts$/.test(name));
  const entryPoints = names.map((name) => join(EXAMPLES, name));
  const output = { outdir: compiled, outExtension: { '.js': '.mjs' } };
  await build({ entryPoints, ...output, format: 'esm', platform: 'node', target: 'node20' });
});

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
  // Where processors are emulated, tsx takes longer to start than all the rest.
  return run([join(compiled, name.replace('.ts', '.mjs')), ...args]);
}

/** The same, as its first lines tell a reader to. */
function startWithTsx(name: string, ...args: string[]) {
  return run(['--import', 'tsx', join(EXAMPLES, name), ...args]);
}

function run(command: string[]) {
  const env = { ...process.env, DISK_KEY: KEY };
  const child = spawn(process.execPath, command, { stdio: ['ignore', 'pipe', 'inherit'], env });
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
  const args = [join(dir, 'disk.img'), '--queues', '2'];
  const { child, ended, next } = startWithTsx('serve-image.ts', ...args);
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

test('fork-disks gives each job a disk that begins as the warmed-up one, and keeps them apart', async () => {
  // An overlay has blocks of 4 KiB, and a small file system smaller blocks unless told otherwise.
  const image = join(dir, 'golden.img');
  execFileSync('mkfs.ext4', ['-q', '-b', '4096', image, '32m']);
  const mnt = await mkdtemp(join(dir, 'mnt-'));
  const warm = `m=${mnt}; mount $DISK $m && echo warm > $m/0 && umount $m`;
  const job = `m=${mnt}$N; mkdir $m && mount $DISK $m && echo $N > $m/$N && echo $(ls $m) && umount $m`;
  const layers = join(dir, 'layers');
  const { ended, next } = start('fork-disks.ts', image, layers, '3', warm, job);
  expect(await next()).toMatch(/^3 forks of generation \d+ \(.*parent\.layer\.\d+\) in [\d.]+ ms$/);
  const said = [await next(), await next(), await next()].sort();
  expect(said).toEqual(['0 1 lost+found', '0 2 lost+found', '0 3 lost+found']);
  for (const n of [1, 2, 3]) expect(await next()).toMatch(`job${n}.layer stores`);
  expect(await ended).toEqual([0, null]);
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

test('heat-map draws what clients did', async () => {
  const svg = join(dir, 'heat.svg');
  const { child, ended, next } = start('heat-map.ts', join(dir, 'disk.img'), svg);
  const path = (await next()).split(':')[0]!;
  execFileSync('dd', [`if=${path}`, 'of=/dev/null', 'bs=1M', 'iflag=direct', 'status=none']);
  child.kill('SIGINT');
  expect(await next()).toMatch(/heat\.svg: \d+ requests$/);
  expect(await ended).toEqual([0, null]);
  expect(readFileSync(svg, 'utf8')).toMatch(/^<svg [^]*<rect [^>]+royalblue[^]*<\/svg>\n$/);
});

test('memory-disk holds a file system', async () => {
  const { child, ended, next } = start('memory-disk.ts', '64MiB');
  const path = (await next()).split(':')[0]!;
  execFileSync('mkfs.ext4', ['-q', path]);
  execFileSync('e2fsck', ['-f', '-n', path]);
  child.kill('SIGINT');
  expect(await ended).toEqual([0, null]);
  expect(await devices()).toEqual([]);
});

test('encrypted-disk holds a file system that its file does not show', async () => {
  const image = join(dir, 'disk.img');
  const { child, ended, next } = start('encrypted-disk.ts', image);
  const path = (await next()).split(':')[0]!;
  execFileSync('mkfs.ext4', ['-q', '-L', 'secretlabel', path]);
  const labels = () => execFileSync('blkid', ['-p', '-s', 'LABEL', path], { encoding: 'utf8' });
  expect(labels()).toContain('secretlabel');
  child.kill('SIGINT');
  expect(await ended).toEqual([0, null]);
  expect(readFileSync(image).includes('secretlabel')).toBe(false);
});

test('http-disk can be mounted, and holds what the server has', async () => {
  const image = join(dir, 'small.img');
  execFileSync('mkfs.ext4', ['-q', image, '4m']);
  const server = createServer((request, response) => {
    const [start, end] = (request.headers.range ?? '')
      .slice('bytes='.length)
      .split('-')
      .map(Number);
    response
      .setHeader('etag', '"1"')
      .setHeader('content-range', `bytes ${start}-${end}/${4 << 20}`);
    createReadStream(image, { start: start!, end: end! }).pipe(response.writeHead(206));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const { child, ended, next } = start('http-disk.ts', `http://127.0.0.1:${port}/`);
  const path = (await next()).split(':')[0]!;
  // Not synchronously: this process is the web server.
  await promisify(execFile)('cmp', [path, image]);
  child.kill('SIGINT');
  expect(await ended).toEqual([0, null]);
  server.closeAllConnections();
  server.close();
});

test('nbd-disk keeps its changes apart from the server', async () => {
  const [image, socket] = [join(dir, 'disk.img'), join(dir, 'nbd.sock')];
  const nbdkit = spawn('nbdkit', ['-f', '-r', '-U', socket, 'file', image]);
  running.push(nbdkit);
  await vi.waitUntil(() => existsSync(socket), { timeout: 60_000 });
  const before = readFileSync(image);
  const uri = `nbd+unix:///?socket=${socket}`;
  const { child, ended, next } = start('nbd-disk.ts', uri, join(dir, 'scratch.layer'));
  const path = (await next()).split(':')[0]!;
  execFileSync('cmp', [path, image]);
  execFileSync('mkfs.ext4', ['-qF', path]);
  execFileSync('fsck.ext4', ['-fn', path]);
  child.kill('SIGINT');
  expect(await ended).toEqual([0, null]);
  expect(readFileSync(image).equals(before)).toBe(true);
});

test('what was synced to a file system on a faulty-disk survives a power cut', async () => {
  const { child, ended, next } = start('faulty-disk.ts', '16MiB');
  const path = (await next()).split(':')[0]!;
  execFileSync('mkfs.ext4', ['-q', path]);
  // Its journal must not sync by itself meanwhile.
  execFileSync('mount', ['-o', 'commit=300', path, dir]);
  writeFileSync(join(dir, 'synced'), 'a'.repeat(100_000), { flush: true });
  writeFileSync(join(dir, 'not synced'), 'b'.repeat(100_000));
  child.kill('SIGUSR1');
  // The file system notices, and gives up what it could not write.
  spawnSync('sync', ['-f', dir]);
  execFileSync('umount', [dir]);
  child.kill('SIGUSR2');
  execFileSync('mount', [path, dir]);
  expect(readFileSync(join(dir, 'synced'), 'utf8')).toBe('a'.repeat(100_000));
  expect(existsSync(join(dir, 'not synced'))).toBe(false);
  execFileSync('umount', [dir]);
  child.kill('SIGINT');
  expect(await ended).toEqual([0, null]);
  expect(await devices()).toEqual([]);
});
