import { execa } from 'execa';
import { describe, expect, test } from 'vitest';

import { createOverlay, exportNbd, targets } from '../../src/index.ts';
import { folder, obstacle, patterned } from './machine.ts';

describe.skipIf(obstacle)('an exported qcow2 image', () => {
  test.each(['cluster_size=512', 'cluster_size=64k', 'extended_l2=on'])(
    'is what qemu reads from the chain of three, also below an overlay (%s)',
    async (options) => {
      await using files = await folder();
      const raw = await patterned(files.at('raw'), 100, 3);
      const [middle, top] = [files.at('middle'), files.at('top')];
      for (const [image, backing, format] of [
        [middle, raw, 'raw'],
        [top, middle, 'qcow2'],
      ] as const) {
        const create = ['create', '-q', '-f', 'qcow2', '-o', options];
        await execa('qemu-img', [...create, '-b', backing, '-F', format, image, '4M']);
        const commands = [
          'write -P 1 100k 37k',
          `write -P 2 ${image === top ? 1 : 2}M 300k`,
          'write -z 600k 99k',
          'write -P 3 4000k 512',
        ];
        await execa('qemu-io', [...commands.flatMap((one) => ['-c', one]), image]);
      }
      const base = targets.qcow2(top);
      await createOverlay(base, files.at('layer'));
      for (const target of [base, targets.overlay(base, files.at('layer'))]) {
        await using exported = await exportNbd(target, { socket: files.at('socket') });
        const compare = ['compare', '-f', 'qcow2', '-F', 'raw', top, exported.uri];
        expect((await execa('qemu-img', compare)).stdout).toMatch(/identical/);
        const map = await execa('qemu-img', ['map', '--output=json', '-f', 'raw', exported.uri]);
        expect(map.stdout).toContain('"zero": true');
      }
    },
  );
});
