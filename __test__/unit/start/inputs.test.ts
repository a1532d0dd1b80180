import { mkdir, mkdtemp, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { findInputs, roomFor } from '../../../scripts/start/inputs.ts';
import { listFiles, measure, ownFiles } from '../../../scripts/start/tree.ts';

const MEBIBYTE = 1024 ** 2;
let dir = '';

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ublk-inputs-'));
  await mkdir(join(dir, 'tree/sub'), { recursive: true });
  await writeFile(join(dir, 'tree/a'), 'aaa');
  await writeFile(join(dir, 'tree/sub/b'), 'b');
  await symlink('a', join(dir, 'tree/link'));
});
afterEach(() => rm(dir, { recursive: true }));

test('regular files count, with their places; links do not', async () => {
  const files = await listFiles([{ from: join(dir, 'tree'), to: 'x' }]);
  expect(files.map(({ to, bytes }) => [to, bytes]).sort()).toEqual([
    ['x/a', 3],
    ['x/sub/b', 1],
  ]);
  expect(measure(files)).toEqual({ count: 2, bytes: 4 });
});

test('the own files are what the checkout holds, not what was made or fetched', async () => {
  const roots = await ownFiles(join(import.meta.dirname, '../../..'));
  const places = roots.map(({ to }) => to);
  expect(places).toEqual(expect.arrayContaining(['ublk/src', 'ublk/package.json', 'typescript']));
  expect(places.filter((to) => /node_modules|target|\/\./.test(to))).toEqual([]);
});

test('an image that is made has room for the files twice', () => {
  expect(roomFor(0)).toBe(256 * MEBIBYTE);
  expect(roomFor(1000 * MEBIBYTE)).toBeGreaterThan(2000 * MEBIBYTE);
  expect(roomFor(123_456_789) % (64 * MEBIBYTE)).toBe(0);
});

test('an ext4 image is accepted, and its size is the device’s', async () => {
  const image = join(dir, 'disk.img');
  await writeFile(image, Buffer.concat([Buffer.alloc(0x438), Buffer.of(0x53, 0xef)]));
  await truncate(image, 20 * MEBIBYTE);
  const inputs = await findInputs({ image, from: join(dir, 'tree'), queues: 1 }, dir);
  expect(inputs).toEqual({
    image,
    roots: [{ from: join(dir, 'tree'), to: '.' }],
    bytes: 4,
    size: 20 * MEBIBYTE,
  });
});

test.each([
  ['an image that is not there', { image: 'missing' }, /no such file/],
  ['a directory as image', { image: 'tree' }, /no regular file/],
  ['an image of something else', { image: 'zeros' }, /no ext4 file system/],
  ['an empty image', { image: 'empty' }, /no ext4 file system/],
  ['a file as directory', { from: 'zeros' }, /no directory/],
  ['a directory without files', { from: 'bare' }, /no regular files/],
])('%s is refused', async (_, named, reason) => {
  await writeFile(join(dir, 'empty'), '');
  await writeFile(join(dir, 'zeros'), '');
  await truncate(join(dir, 'zeros'), 20 * MEBIBYTE);
  await mkdir(join(dir, 'bare'));
  const paths = Object.fromEntries(Object.entries(named).map(([k, name]) => [k, join(dir, name)]));
  const options = { from: join(dir, 'tree'), ...paths, queues: 1 };
  await expect(findInputs(options, dir)).rejects.toThrow(reason);
});
