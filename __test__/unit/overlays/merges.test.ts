import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { runCli } from '../../../src/cli/run.ts';
import {
  commitOverlay,
  exportOverlay,
  flattenOverlay,
  forkOverlay,
  overlayInfo,
  targets,
  type OverlayProgress,
} from '../../../src/index.ts';
import { simulate } from '../../../src/testing/index.ts';
import { block, OverlayFolder, SIZE } from './folder.ts';

let folder: OverlayFolder;
let low = '';
let high = '';
const expected = Buffer.alloc(SIZE, 9);
expected.set(block(7, 2), 8192);
expected.set(block(8), 12288);
expected.fill(0, 65536, 131072);

beforeEach(async () => {
  folder = new OverlayFolder();
  low = await folder.layer('low', (disk) => disk.write(8192, block(7, 2)));
  high = await folder.layer(
    'high',
    async (disk) => {
      await disk.write(12288, block(8));
      await disk.discard(65536, 65536);
    },
    low,
  );
});
afterEach(() => folder[Symbol.dispose]());

describe('exportOverlay', () => {
  test('writes the disk, with holes for zeros, and reports progress', async () => {
    const out = folder.file('out.img');
    const heard: OverlayProgress[] = [];
    const made = await exportOverlay(folder.base, high, out, {
      onProgress: (progress) => heard.push(progress),
    });
    expect(made).toEqual({ size: SIZE, written: SIZE - 65536 });
    expect(readFileSync(out).equals(expected)).toBe(true);
    expect(statSync(out).blocks * 512).toBe(SIZE - 65536);
    expect(heard.at(-1)).toEqual({ done: SIZE, total: SIZE });
  });

  test('replaces a file only when asked to', async () => {
    const out = folder.file('out.img');
    writeFileSync(out, 'precious');
    await expect(exportOverlay(folder.base, high, out)).rejects.toMatchObject({
      code: 'ERR_UBLK_BAD_BACKEND',
      message: expect.stringContaining('it exists'),
    });
    expect(readFileSync(out, 'utf8')).toBe('precious');
    await exportOverlay(folder.base, high, out, { replace: true });
    expect(readFileSync(out).equals(expected)).toBe(true);
  });

  test('leaves nothing when it is aborted', async () => {
    const out = folder.file('out.img');
    const reason = new Error('changed my mind');
    const ended = new AbortController();
    const big = targets.null({ size: '1TiB' });
    const layer = folder.file('big');
    await using disk = await simulate(
      targets.overlay(big, layer, { create: true, history: '/dev/shm' }),
    );
    await disk.close();
    const onProgress = () => ended.abort(reason);
    const options = { signal: ended.signal, onProgress };
    await expect(exportOverlay(big, layer, out, options)).rejects.toBe(reason);
    await expect(exportOverlay(big, layer, out, options)).rejects.toBe(reason);
    expect(existsSync(out)).toBe(false);
  });

  test.each([
    [{ replace: 1 }, /replace is 1/],
    [{ force: true }, /has no 'force'/],
    [{ signal: 'now' }, /must be an AbortSignal/],
    [{ onProgress: true }, /must be a function/],
  ])('refuses %o', async (options, message) => {
    const out = folder.file('out.img');
    await expect(exportOverlay(folder.base, high, out, options as never)).rejects.toThrow(message);
  });
});

describe('flattenOverlay', () => {
  test('merges all layers, and keeps those below unless asked to prune', async () => {
    expect(await flattenOverlay(high)).toEqual({ kept: [low], removed: [] });
    expect(await overlayInfo(high)).toHaveLength(1);
    expect((await folder.read(high)).equals(expected)).toBe(true);
    const other = folder.file('other');
    await forkOverlay(low, [other]);
    expect(await flattenOverlay(other, { prune: true })).toEqual({ kept: [], removed: [low] });
    expect(readdirSync(folder.path).sort()).toEqual(['base.img', 'high', 'other']);
  });

  test('refuses a disk that is served, and says who has it', async () => {
    await using _disk = await simulate(targets.overlay(folder.base, high, { history: '/dev/shm' }));
    for (const layer of [low, high]) {
      await expect(flattenOverlay(layer)).rejects.toMatchObject({
        code: 'ERR_UBLK_BUSY',
        hint: expect.stringContaining(`process ${process.pid}`),
      });
    }
  });
});

describe('commitOverlay', () => {
  test('merges two layers, then writes the result into the base', async () => {
    expect(await commitOverlay(high)).toEqual({ kept: [], removed: [low] });
    expect((await folder.read(high)).equals(expected)).toBe(true);
    await expect(commitOverlay(high)).rejects.toThrow(/stands on its base/);
    await commitOverlay(high, { intoBase: folder.image });
    expect(readFileSync(folder.image).equals(expected)).toBe(true);
    expect((await overlayInfo(high))[0]).toMatchObject({ stored: 0, zeros: 0 });
    expect((await folder.read(high)).equals(expected)).toBe(true);
  });

  test('refuses to change what other layers stand on, and names these', async () => {
    const other = folder.file('other');
    await forkOverlay(low, [other]);
    await expect(commitOverlay(high)).rejects.toThrow(other);
    await expect(commitOverlay(high, { intoBase: folder.image })).rejects.toThrow(
      /stands on other layers/,
    );
    await flattenOverlay(high);
    await expect(commitOverlay(high, { intoBase: folder.image })).rejects.toThrow(low);
    expect(readFileSync(folder.image).equals(Buffer.alloc(SIZE, 9))).toBe(true);
  });
});

describe('the command', () => {
  async function run(...args: string[]): Promise<unknown> {
    let text = '';
    const write = vi.spyOn(process.stdout, 'write');
    write.mockImplementation((some) => ((text += String(some)), true));
    try {
      expect(await runCli(['overlay', ...args, '--json'])).toBe(0);
    } finally {
      write.mockRestore();
    }
    return JSON.parse(text);
  }

  test('exports, flattens and commits', async () => {
    const out = folder.file('out.img');
    expect(await run('export', folder.image, high, out)).toMatchObject({ path: out, size: SIZE });
    expect(readFileSync(out).equals(expected)).toBe(true);
    await run('export', folder.image, high, out, '--force');
    expect(await run('flatten', high)).toEqual({ path: high, kept: [low], removed: [] });
    expect(await run('flatten', high, '--prune')).toEqual({ path: high, kept: [], removed: [] });
    const other = await folder.layer('other', (disk) => disk.write(0, block(1)), high);
    expect(await run('commit', other)).toEqual({ path: other, kept: [], removed: [high] });
  });
});
