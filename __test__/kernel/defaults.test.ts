import { release } from 'node:os';
import { join } from 'node:path';

import { afterEach, describe, expect, test } from 'vitest';

import {
  createDevice,
  handler,
  targets,
  type BufferMode,
  type DeviceOptions,
  type ExchangeMode,
} from '../../src/index.ts';
import { fioVerify } from './fio.ts';
import { sparseImage, temporaryFolder } from './image.ts';
import { expectNoDevices, withUblk } from './machine.ts';
import { startServer, ublk } from './server.ts';

const MIB = 1024 * 1024;
const [major = 0, minor = 0] = release().split('.').map(Number);

/** What is best here, by the kernel's age alone: 6.16 was the first to lend pages of requests. */
const lendsPages = major > 6 || (major === 6 && minor >= 16);
const best: BufferMode = lendsPages ? 'auto' : 'copy';
const batches: ExchangeMode = major >= 7 ? 'batch' : 'per-io';

/** Targets by name, with what they are served with. */
function everyTarget(): [string, DeviceOptions['target'], BufferMode, ExchangeMode][] {
  const folder = temporaryFolder();
  const file = (name: string) => targets.file(sparseImage(16 * MIB, folder, name));
  const disk = Buffer.alloc(16 * MIB);
  return [
    ['a file', file('file'), best, batches],
    ['stripes', targets.striped([file('left'), file('right')]), best, batches],
    ['a delay', targets.delay(file('slow'), { writeUs: 10 }), best, batches],
    [
      'a handler that maps',
      handler({
        size: 16 * MIB,
        backends: { all: file('mapped') },
        map: ({ offset, length }) => [{ backend: 'all', offset, length }],
      }),
      best,
      batches,
    ],
    [
      'a handler of data',
      {
        size: disk.length,
        read: ({ data, offset }) => void disk.copy(data, 0, offset),
        write: ({ data, offset }) => void data.copy(disk, offset),
        flush() {},
      },
      'copy',
      batches,
    ],
  ];
}

withUblk('without a word about buffers,', () => {
  afterEach(expectNoDevices);

  test('every target works in the best way of this kernel', async () => {
    for (const [name, target, mode, exchange] of everyTarget()) {
      await using device = await createDevice({ target });
      expect({ name, ...device.buffers }).toMatchObject({ name, mode, exchange });
      await fioVerify(device, ['--size=4M']);
      expect({ name, errors: device.stats().total.errors }).toEqual({ name, errors: 0 });
    }
  });

  describe('the command', () => {
    test('serves in the best way of this kernel', async () => {
      const path = sparseImage(MIB, temporaryFolder(), 'disk.img');
      const { server } = await startServer('add', 'file', path, '--json');
      const { stdout } = await ublk('info', '0', '--json');
      expect(JSON.parse(stdout)).toMatchObject({ path: '/dev/ublkb0', state: 'live' });
      server.kill('SIGTERM');
      const { exitCode, stderr } = await server;
      expect(exitCode).toBe(0);
      expect(stderr).toContain(join('/dev', 'ublkb0'));
    });
  });

  test('what this kernel cannot do is refused by name', async (context) => {
    if (lendsPages) context.skip('this kernel can do it all');
    const target = targets.null({ size: '1MiB' });
    for (const buffers of ['auto', 'register', 'shared'] as const) {
      await expect(createDevice({ target, buffers })).rejects.toMatchObject({
        code: 'ERR_UBLK_UNSUPPORTED',
        message: expect.stringContaining(buffers) as string,
        hint: expect.stringContaining('leave the option out') as string,
      });
    }
  });
});
