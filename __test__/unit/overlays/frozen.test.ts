import { describe, expect, test } from 'vitest';

import { parseTarget } from '../../../src/cli/commands/add-layers.ts';
import { flattenOverlay, targets } from '../../../src/index.ts';
import { simulate } from '../../../src/testing/index.ts';
import { block, OverlayFolder } from './folder.ts';

describe('a frozen layer', () => {
  test('is a base in another folder, also below a linear target, and keeps its own contents', async () => {
    using folder = new OverlayFolder();
    using elsewhere = new OverlayFolder();
    const low = await folder.layer('low', (disk) => disk.write(8192, block(7, 2)));
    const live = await folder.layer('live', (disk) => disk.write(0, block(1)), low);
    const base = targets.overlay(folder.base, low);
    const guest = targets.overlay(base, elsewhere.file('guest'), {
      create: true,
      history: '/dev/shm',
    });
    {
      await using disk = await simulate(guest);
      await disk.write(8192, block(5));
      expect(Buffer.from(await disk.read(4096, 16384))).toEqual(
        Buffer.concat([block(9), block(5), block(7), block(9)]),
      );
    }
    const file = targets.file(folder.image, { readOnly: true });
    await using whole = await simulate(
      targets.linear([targets.overlay(folder.base, low, { readOnly: true }), file]),
    );
    expect(Buffer.from(await whole.read(8192, 8192))).toEqual(block(7, 2));
    await expect(simulate(targets.overlay(folder.base, live, { readOnly: true }))).rejects.toThrow(
      /is a live layer/,
    );
    // The folder of the guest is another one than that of the layer.
    await expect(flattenOverlay(live, { prune: true })).resolves.toMatchObject({ kept: [low] });
  });

  test.each([{ create: true }, { history: '/dev/shm' }, { loseUnflushed: true }])(
    'takes no options of a live layer: %o',
    (options) => {
      const make = () =>
        targets.overlay(targets.null({ size: '1MiB' }), 'a', { readOnly: true, ...options });
      expect(make).toThrow(/goes with a live layer/);
    },
  );

  test('is named by a word of the command line', () => {
    const base = { kind: 'qcow2', path: 'a.qcow2' };
    const target = { kind: 'overlay', path: 'golden.layer', base, readOnly: true };
    expect(parseTarget('overlay:golden.layer:qcow2:a.qcow2')).toMatchObject(target);
  });
});
