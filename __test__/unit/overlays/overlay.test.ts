import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import {
  createOverlay,
  forkOverlay,
  overlayDiff,
  overlayInfo,
  targets,
  type Target,
} from '../../../src/index.ts';
import { toNativeTarget } from '../../../src/targets/index.ts';
import { simulate, type SimulateOptions } from '../../../src/testing/index.ts';

const SIZE = 1 << 20;
const block = (byte: number, blocks = 1) => Buffer.alloc(blocks * 4096, byte);

describe('targets.overlay', () => {
  test('passes on its base, an absolute path, and what is asked for', () => {
    const target = targets.overlay(targets.null({ size: '1MiB' }), 'a.layer', {
      create: true,
      loseUnflushed: true,
      logicalBlockSize: 512,
    });
    expect(Object.isFrozen(target)).toBe(true);
    expect(toNativeTarget(target)).toEqual({
      kind: 'overlay',
      path: resolve('a.layer'),
      targets: [{ kind: 'null', size: SIZE }],
      create: true,
      loseUnflushed: true,
      logicalBlockSize: 512,
    });
  });

  test.each([
    [{ create: 'yes' }, /create is "yes"; it must be true or false/],
    [{ history: 7 }, /history is 7/],
    [{ logicalBlockSize: 513 }, /logicalBlockSize is 513; it must be 512, 1024, 2048 or 4096/],
    [{ loseUnflushed: 1 }, /loseUnflushed is 1; it must be true or false/],
    [{ histroy: '/dev/shm' }, /has no 'histroy'/],
  ])('refuses %o', (options, message) => {
    const base = targets.null({ size: '1MiB' });
    expect(() => targets.overlay(base, 'a.layer', options as never)).toThrow(message);
  });

  test('refuses a base that is no target', () => {
    expect(() => targets.overlay('base.img' as never, 'a.layer')).toThrow(/base is no target/);
    expect(() => targets.overlay({ size: 1, read: () => {} } as never, 'a')).toThrow(
      /is a handler/,
    );
  });
});

describe('a simulated overlay', () => {
  let folder = '';
  let layer = '';
  const base = () => targets.file(join(folder, 'base.img'));
  const disk = (options?: SimulateOptions) =>
    simulate(targets.overlay(base(), layer, { create: true, history: '/dev/shm' }), options);

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ublk-overlay-'));
    layer = join(folder, 'vm.layer');
    writeFileSync(join(folder, 'base.img'), Buffer.alloc(SIZE, 9));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  test('stores differences from its base, which stays as it was', async () => {
    {
      await using simulated = await disk();
      expect(simulated).toMatchObject({ size: SIZE, logicalBlockSize: 4096 });
      await simulated.write(8192, block(7, 3));
      await simulated.writeZeroes(12288, 4096);
      await simulated.discard(65536, 65536);
      const expected = Buffer.concat([block(9), block(7), block(0), block(7), block(9)]);
      expect((await simulated.read(4096, 5 * 4096)).equals(expected)).toBe(true);
      expect((await simulated.read(65536, 65536)).equals(block(0, 16))).toBe(true);
    }
    await using again = await disk();
    expect((await again.read(8192, 4096)).equals(block(7))).toBe(true);
    expect(readFileSync(join(folder, 'base.img')).equals(Buffer.alloc(SIZE, 9))).toBe(true);
  });

  test('has logical blocks as the disk was made with, which its layer remembers', async () => {
    await createOverlay(base(), layer, { logicalBlockSize: 512 });
    expect((await overlayInfo(layer))[0]).toMatchObject({ logicalBlockSize: 512, stored: 0 });
    const expected = Buffer.alloc(8192, 9);
    {
      await using simulated = await disk();
      expect(simulated).toMatchObject({ size: SIZE, logicalBlockSize: 512 });
      for (const sector of [3, 9, 10, 1]) {
        const bytes = Buffer.alloc(512, sector);
        await simulated.write(sector * 512, bytes);
        bytes.copy(expected, sector * 512);
      }
      expect((await simulated.read(512, 7680)).equals(expected.subarray(512))).toBe(true);
    }
    expect((await overlayInfo(layer))[0]).toMatchObject({ stored: 8192 });
    await using again = await disk();
    expect((await again.read(0, 8192)).equals(expected)).toBe(true);
  });

  test('has the logical blocks of a base that is asked for some', async () => {
    const fine = targets.file(join(folder, 'base.img'), { logicalBlockSize: 512 });
    const of = async (below: Target, logicalBlockSize?: number) => {
      const path = join(folder, `${String(logicalBlockSize)}.layer`);
      await createOverlay(below, path, { logicalBlockSize });
      const [{ logicalBlockSize: found } = {}] = await overlayInfo(path);
      rmSync(path);
      return found;
    };
    expect([await of(base()), await of(fine), await of(fine, 1024)]).toEqual([4096, 512, 1024]);
    const coarse = targets.file(join(folder, 'base.img'), { logicalBlockSize: 4096 });
    await expect(of(coarse, 512)).rejects.toThrow(/the base is read in blocks of 4096/);
    await expect(of(base(), 513)).rejects.toThrow(/logicalBlockSize is 513/);
  });

  test('keeps what was flushed through a power cut, and shows nothing else than was written', async () => {
    for (let seed = 1; seed <= 8; seed += 1) {
      rmSync(layer, { force: true });
      await using simulated = await disk({ seed, faults: { short: 0.1 } });
      await simulated.write(0, block(1, 16));
      await simulated.flush();
      await simulated.write(32 * 4096, block(2, 16));
      await simulated.discard(8 * 4096, 4096);
      await simulated.powerCut();
      const bytes = await simulated.read(0, SIZE);
      const firsts = Array.from({ length: SIZE / 4096 }, (_, at) => bytes[at * 4096]!);
      for (const [at, first] of firsts.entries()) {
        expect(bytes.subarray(at * 4096, (at + 1) * 4096).equals(block(first))).toBe(true);
        const flushed = at < 16 ? (at === 8 ? [1, 0] : [1]) : [9];
        expect(at >= 32 && at < 48 ? [9, 2] : flushed).toContain(first);
      }
    }
  });

  test('lies below a delay, and below no other layer', async () => {
    const overlay = targets.overlay(base(), layer, { create: true, history: '/dev/shm' });
    {
      await using delayed = await simulate(targets.delay(overlay, { writeUs: 100 }));
      await delayed.write(8192, block(7));
      await delayed.flush();
      expect((await delayed.read(4096, 8192)).equals(Buffer.concat([block(9), block(7)]))).toBe(
        true,
      );
    }
    const handler = { size: SIZE, backends: { overlay }, read: () => {} };
    for (const above of [targets.linear([overlay]), targets.striped([overlay]), handler]) {
      await expect(simulate(above)).rejects.toThrow(/an overlay cannot lie below/);
    }
    await using again = await disk();
    expect((await again.read(8192, 4096)).equals(block(7))).toBe(true);
  });

  test('is forked and described', async () => {
    await createOverlay(base(), layer);
    const children = ['a', 'b'].map((name) => join(folder, name));
    await forkOverlay(layer, children, { history: '/dev/shm' });
    await expect(disk()).rejects.toThrow(/is frozen/);
    await expect(forkOverlay(layer, children)).rejects.toThrow(/it exists/);
    const layers = await overlayInfo(children[1]!);
    expect(layers.map(({ path, frozen, closed, size }) => [path, frozen, closed, size])).toEqual([
      [children[1], false, true, SIZE],
      [layer, true, true, SIZE],
    ]);
  });

  test('tells its changes, since the base and since a layer below', async () => {
    await createOverlay(base(), layer);
    {
      await using first = await disk();
      await first.write(8192, block(7, 2));
      await first.write(65536, block(7));
    }
    const child = join(folder, 'child');
    await forkOverlay(layer, [child], { history: '/dev/shm' });
    {
      const target = targets.overlay(base(), child, { history: '/dev/shm' });
      await using second = await simulate(target);
      await second.write(16384, block(8));
      await second.writeZeroes(65536, 8192);
    }
    expect(await overlayDiff(child)).toEqual([
      { offset: 8192, length: 12288, zeros: false },
      { offset: 65536, length: 8192, zeros: true },
    ]);
    expect(await overlayDiff(child, { from: layer })).toEqual([
      { offset: 16384, length: 4096, zeros: false },
      { offset: 65536, length: 8192, zeros: true },
    ]);
    await expect(overlayDiff(layer, { from: child })).rejects.toThrow(/is no layer below/);
    await expect(overlayDiff(child, { since: layer } as never)).rejects.toThrow(/has no 'since'/);
  });

  test('says what is wrong with its files', async () => {
    await expect(overlayInfo(layer)).rejects.toMatchObject({ code: 'ERR_UBLK_NO_BACKEND' });
    writeFileSync(layer, 'something else');
    await expect(disk()).rejects.toMatchObject({ code: 'ERR_UBLK_BAD_BACKEND' });
    await expect(createOverlay(base(), layer)).rejects.toThrow(/it exists/);
    expect(readFileSync(layer, 'utf8')).toBe('something else');
  });
});
