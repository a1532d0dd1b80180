import { writeFileSync } from 'node:fs';

import { execa } from 'execa';
import { afterEach, describe, expect, test } from 'vitest';

import { createDevice, targets, type Target } from '../../src/index.ts';
import { expectNoDevices, isTestMachine, withUblk } from './machine.ts';
import { modesOf } from './modes.ts';
import { makeNullDisk, removeNullDisk } from './null-disk.ts';

const NAME = 'ublkpulled';

/** What dd says of 64 KiB from, or to, the device's second MiB, past the page cache. */
async function move(how: 'read' | 'write', path: string): Promise<string> {
  const files = how === 'read' ? [`if=${path}`, 'of=/dev/null'] : ['if=/dev/zero', `of=${path}`];
  const place = how === 'read' ? ['skip=16', 'iflag=direct'] : ['seek=16', 'oflag=direct'];
  const { stderr } = await execa('dd', [...files, ...place, 'bs=64k', 'count=1'], {
    reject: false,
    env: { LC_ALL: 'C' },
  });
  return /error (?:reading|writing).*/.exec(stderr)?.[0] ?? stderr;
}

withUblk('a backing disk that is pulled', () => {
  afterEach(expectNoDevices);

  const shapes: Record<string, (path: string) => Target> = {
    'a file': (path) => targets.file(path),
    'a buffered file': (path) => targets.file(path, { direct: false }),
    stripes: (path) => targets.striped([targets.file(path)]),
  };

  describe.runIf(isTestMachine)('below', () => {
    describe.each(Object.entries(shapes))('%s', (_, target) => {
      test.each(modesOf('auto', 'register', 'copy'))('fails reads and writes: %j', async (mode) => {
        const path = await makeNullDisk(NAME, {});
        try {
          await using device = await createDevice({ target: target(path), ...mode });
          expect(await move('write', device.path)).not.toContain('error');
          expect(await move('read', device.path)).not.toContain('error');
          writeFileSync(`/sys/kernel/config/nullb/${NAME}/power`, '0');
          expect(await move('read', device.path)).toContain('Input/output error');
          expect(await move('write', device.path)).toContain('Input/output error');
        } finally {
          removeNullDisk(NAME);
        }
      });
    });
  });
});
