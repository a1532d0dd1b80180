import { closeSync, openSync, readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { runCli } from '../../../src/cli/run.ts';
import {
  applyOverlayChanges,
  overlayCheck,
  overlayTree,
  streamOverlayChanges,
  targets,
} from '../../../src/index.ts';
import { simulate } from '../../../src/testing/index.ts';
import { block, OverlayFolder } from './folder.ts';

let folder: OverlayFolder;
let low = '';
let high = '';

beforeEach(async () => {
  folder = new OverlayFolder();
  low = await folder.layer('low', (disk) => disk.write(8192, block(7, 2)));
  high = await folder.layer('high', (disk) => disk.discard(8192, 4096), low);
});
afterEach(() => {
  folder[Symbol.dispose]();
  process.exitCode = undefined;
});

/** Runs a command, and answers the exit status and stdout. */
async function run(...args: string[]): Promise<[number, string]> {
  let text = '';
  const write = vi.spyOn(process.stdout, 'write');
  write.mockImplementation((some) => ((text += String(some)), true));
  try {
    return [await runCli(['overlay', ...args]), text];
  } finally {
    write.mockRestore();
  }
}

describe('overlayTree', () => {
  test('shows who stands on whom, and who serves what', async () => {
    await using _disk = await simulate(targets.overlay(folder.base, high, { history: '/dev/shm' }));
    const [root, ...more] = await overlayTree(folder.path);
    expect(more).toEqual([]);
    expect(root).toMatchObject({ base: folder.image, layerMissing: false });
    expect(root!.children).toMatchObject([
      { path: low, frozen: true, closed: true, children: [{ path: high, closed: false }] },
    ]);
    expect(root!.children[0]!.children[0]).toMatchObject({ server: process.pid, children: [] });
    const [, text] = await run('tree', folder.path);
    expect(text).toMatch(
      /^base\.img\n└─ low {2}\S+ \S+ {2}frozen\n {3}└─ high {2}.* {2}served: process \d+\n$/,
    );
    const [, json] = await run('tree', folder.path, '--json');
    expect(JSON.parse(json)).toEqual([root]);
  });

  test('says what is missing', async () => {
    utimesSync(folder.image, 1, 1);
    expect(await overlayTree(folder.path)).toMatchObject([
      { base: undefined, layerMissing: false, children: [{ path: low }] },
    ]);
    await expect(overlayTree(folder.file('nowhere'))).rejects.toMatchObject({
      code: 'ERR_UBLK_NO_BACKEND',
    });
  });
});

test('overlay info shows the layers below each other, with their blocks', async () => {
  const [status, text] = await run('info', high);
  expect(status).toBe(0);
  expect(text).toMatch(
    /^layer +state +block +stored .*\n.*high +live +4096 .*\n.*low +frozen +4096 /,
  );
});

describe('a base with layers', () => {
  test('is not served for writing, and the layers are named', async () => {
    await expect(simulate(folder.base)).rejects.toMatchObject({
      code: 'ERR_UBLK_INVALID_ARGUMENT',
      message: expect.stringContaining(low),
    });
    await using _read = await simulate(targets.file(folder.image, { readOnly: true }));
    await using _null = await simulate(targets.null({ size: '1MiB' }));
  });

  test('is served when its time says that the layers are void', async () => {
    utimesSync(folder.image, 1, 1);
    await using disk = await simulate(folder.base);
    await disk.write(0, block(1));
    expect((await disk.read(0, 4096)).equals(block(1))).toBe(true);
  });
});

describe('overlayCheck', () => {
  test('finds nothing in a sound disk, and gives unused space back', async () => {
    const { base } = folder;
    expect(await overlayCheck(high, { base })).toMatchObject({
      layers: [high, low],
      problems: [],
      reclaimed: 0,
    });
    const before = await overlayCheck(high);
    const after = await overlayCheck(high, { repair: true });
    expect(after.reclaimed + after.unused).toBe(before.unused);
    const [status, text] = await run('check', high, '--base', folder.image);
    expect([status, text]).toEqual([0, expect.stringMatching(/^layers checked: 2; no problems; /)]);
  });

  test('tells what is wrong, and repairs nothing then', async () => {
    writeFileSync(low, 'something else');
    const [status, text] = await run('check', high, '--json', '--repair');
    expect(status).toBe(4);
    expect(JSON.parse(text)).toMatchObject({ problems: [{ path: high }], reclaimed: 0 });
  });
});

describe('changes as a stream', () => {
  test('make the same disk elsewhere, and need what they stand on', async () => {
    using backup = new OverlayFolder();
    writeFileSync(backup.image, readFileSync(folder.image));
    const first = folder.file('first');
    const second = folder.file('second');
    for (const [path, layer, from] of [
      [first, low, undefined],
      [second, high, low],
    ] as const) {
      await using file = await open(path, 'wx');
      await streamOverlayChanges(layer, file, { from });
    }
    const apply = async (changes: string, name: string, base = folder.base) => {
      const fd = openSync(changes, 'r');
      await applyOverlayChanges(fd, backup.file(name), { base }).finally(() => closeSync(fd));
    };
    await expect(apply(second, 'high')).rejects.toMatchObject({ code: 'ERR_UBLK_NO_BACKEND' });
    await expect(apply(first, 'low', backup.base)).rejects.toThrow(
      /a base of another size or time/,
    );
    await apply(first, 'low');
    const cut = folder.file('cut');
    writeFileSync(cut, readFileSync(second).subarray(0, -1));
    await expect(apply(cut, 'high')).rejects.toMatchObject({ code: 'ERR_UBLK_BAD_BACKEND' });
    expect(readdirSync(backup.path).sort()).toEqual(['base.img', 'low']);
    await apply(second, 'high');
    const expected = await folder.read(high);
    const target = targets.overlay(folder.base, backup.file('high'), { history: '/dev/shm' });
    await using disk = await simulate(target);
    expect((await disk.read(0, 1 << 20)).equals(expected)).toBe(true);
  });

  test('go through the command', async () => {
    const changes = folder.file('changes');
    await using file = await open(changes, 'wx');
    await streamOverlayChanges(high, file, { from: low });
    const copy = folder.file('copy');
    const [status, text] = await run('apply', changes, '--to', copy, '--json');
    expect([status, JSON.parse(text)]).toEqual([0, { path: copy }]);
    expect((await folder.read(copy)).equals(await folder.read(high))).toBe(true);
  });

  test.each([['x'], [-1], [{ fd: '1' }], [null]])('refuse the descriptor %o', async (fd) => {
    await expect(streamOverlayChanges(high, fd as never)).rejects.toThrow(
      /must be a file descriptor/,
    );
  });
});
