import { writeFileSync } from 'node:fs';

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { runCli } from '../../../src/cli/run.ts';
import { overlayInfo, rebaseOverlay, targets } from '../../../src/index.ts';
import { simulate } from '../../../src/testing/index.ts';
import { block, OverlayFolder, SIZE } from './folder.ts';

let folder: OverlayFolder;
let layer = '';
let image = '';

beforeEach(async () => {
  folder = new OverlayFolder();
  layer = await folder.layer('layer', (disk) => disk.write(8192, block(7, 2)));
  image = folder.file('new.img');
  // The new base differs in the first five blocks, of which the layer has two.
  writeFileSync(image, Buffer.concat([block(1, 5), Buffer.alloc(SIZE - 5 * 4096, 9)]));
});
afterEach(() => folder[Symbol.dispose]());

async function read(): Promise<Buffer> {
  const target = targets.overlay(targets.file(image), layer, { history: '/dev/shm' });
  await using disk = await simulate(target);
  return Buffer.from(await disk.read(0, SIZE));
}

describe('rebaseOverlay', () => {
  test('copies what differs into the layer, and the disk reads the same', async () => {
    const before = await folder.read(layer);
    const done = await rebaseOverlay(layer, targets.file(image), { from: folder.base });
    expect(done).toEqual({ copied: 3 * 4096, zeros: 0 });
    expect((await overlayInfo(layer))[0]).toMatchObject({ stored: 5 * 4096 });
    expect((await read()).equals(before)).toBe(true);
    await expect(folder.read(layer)).rejects.toThrow(/was modified since/);
  });

  test('only notes the new base where that is asked for', async () => {
    const done = await rebaseOverlay(layer, targets.file(image), { unsafe: true });
    expect(done).toEqual({ copied: 0, zeros: 0 });
    expect((await read()).subarray(0, 4 * 4096)).toEqual(Buffer.concat([block(1, 2), block(7, 2)]));
  });

  test.each([
    [{}, /the present base of the layer is missing/],
    [{ from: targets.null({ size: SIZE }), unsafe: true }, /exclude each other/],
    [{ unsafe: 1 }, /unsafe is 1/],
    [{ force: true }, /has no 'force'/],
  ])('refuses %o', async (options, message) => {
    const rebased = rebaseOverlay(layer, targets.file(image), options as never);
    await expect(rebased).rejects.toThrow(message);
  });

  test('is a command', async () => {
    let text = '';
    const write = vi.spyOn(process.stdout, 'write');
    write.mockImplementation((some) => ((text += String(some)), true));
    try {
      const words = ['overlay', 'rebase', layer, '--base', image, '--json'];
      expect(await runCli([...words, '--from', folder.image])).toBe(0);
    } finally {
      write.mockRestore();
    }
    const done = { path: layer, base: image, copied: 3 * 4096, zeros: 0 };
    expect(JSON.parse(text)).toEqual(done);
  });
});
