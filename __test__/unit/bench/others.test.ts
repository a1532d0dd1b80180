import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readOthers } from '../../../bench/others.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ublk-others-test-'));
});
afterEach(() => rm(dir, { recursive: true }));

test('a server that is known by name is started where the machine sees it, in each mode', async () => {
  await writeFile(join(dir, 'kublk'), 'a program');
  const place = join(dir, 'place');
  const others = await readOthers(dir, place);
  expect(new Set(others.map(({ target, name }) => `${target} ${name}`)).size).toBe(8);
  for (const { start, stop, program, target } of others) {
    expect(program).toBe(join(place, 'kublk'));
    expect(start).toContain(`'${program}' add`);
    expect(stop).toContain(`'${program}' del`);
    expect(start.includes('"$backing"')).toBe(target === 'file');
  }
});

test('a directory without a known server is refused with those that are', async () => {
  await expect(readOthers(dir)).rejects.toThrow(/no server that is known by name \(kublk\)/);
});

test('a list is taken as it is', async () => {
  const path = join(dir, 'others.json');
  const list = [{ name: 'mine', target: 'null', device: '/dev/x', start: 'a', stop: 'b' }];
  await writeFile(path, JSON.stringify(list));
  expect(await readOthers(path)).toEqual(list);
});
