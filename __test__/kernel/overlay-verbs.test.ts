import { readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { execa } from 'execa';
import { afterEach, expect, test } from 'vitest';

import { createDevice, forkOverlay, overlayTree, targets } from '../../src/index.ts';
import { carries } from './filesystem.ts';
import { sparseImage } from './image.ts';
import { expectNoDevices, withUblk } from './machine.ts';
import { CLI, ublk } from './server.ts';

const MIB = 1024 * 1024;

/** Runs `ublk overlay` and answers stdout; fails with stderr. */
async function cli(...args: string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await ublk('overlay', ...args);
  if (exitCode !== 0) throw new Error(stderr);
  return stdout;
}

withUblk('the verbs of an overlay', () => {
  afterEach(expectNoDevices);

  test('keep a file system as it is: export, flatten, commit, changes', async () => {
    const image = sparseImage(64 * MIB);
    const base = targets.file(image);
    const file = (name: string) => join(dirname(image), name);
    const [low, high, out] = [file('low'), file('high'), file('out.img')];
    const serve = (layer: string) =>
      createDevice({ target: targets.overlay(base, layer, { create: layer === low }) });
    {
      await using device = await serve(low);
      expect(await carries(device, ['mkfs.ext4', '-q'], ['e2fsck', '-f', '-n'])).toBe(true);
      await expect(cli('flatten', low)).rejects.toThrow(/ERR_UBLK_BUSY/);
    }
    await forkOverlay(low, [high]);
    {
      await using device = await serve(high);
      await execa('blkdiscard', ['--offset', String(48 * MIB), device.path]);
      await execa('cp', ['--sparse=never', device.path, out]);
      const [root] = await overlayTree(dirname(image));
      expect(root!.children[0]!.children[0]).toMatchObject({
        device: device.path,
        server: process.pid,
      });
    }
    await cli('export', image, high, file('exported.img'));
    await execa('cmp', [out, file('exported.img')]);
    expect(statSync(file('exported.img')).blocks).toBeLessThan(statSync(out).blocks);
    // Through a pipe, as from one machine to another.
    const send = `node ${CLI} overlay diff ${high} --stream`;
    const receive = `node ${CLI} overlay apply - --to ${file('copy')} --base ${image}`;
    await execa('bash', ['-o', 'pipefail', '-c', `${send} | ${receive}`]);
    await cli('commit', high);
    await cli('check', high, '--base', image, '--repair');
    for (const layer of [high, file('copy')]) {
      await using device = await serve(layer);
      await execa('cmp', [out, device.path]);
    }
    await expect(cli('commit', high, '--into-base', image)).rejects.toThrow(file('copy'));
    await execa('rm', [file('copy')]);
    await cli('commit', high, '--into-base', image);
    expect(readFileSync(image).equals(readFileSync(out))).toBe(true);
    await using device = await serve(high);
    await execa('cmp', [out, device.path]);
  });
});
