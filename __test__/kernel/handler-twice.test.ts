import { setTimeout as sleep } from 'node:timers/promises';

import { execa } from 'execa';
import { afterEach, describe, expect, test } from 'vitest';

import {
  handler,
  IoError,
  targets,
  type Device,
  type DeviceOptions,
  type HandlerRequest,
  type UblkError,
} from '../../src/index.ts';
import { fioVerify } from './fio.ts';
import { sparseImage } from './image.ts';
import { createOrSkip, expectNoDevices, withUblk } from './machine.ts';

const MIB = 1024 * 1024;
const SIZE = 16 * MIB;
/** So few requests at once that each tag is another's as soon as it is answered. */
const SHAPE: Pick<DeviceOptions, 'queues' | 'depth'> = { queues: 1, depth: 2 };

/** Its warnings, but for complaints of a slow machine. */
function warningsOf(device: Device): UblkError[] {
  const warnings: UblkError[] = [];
  device.on('warning', (warning) => {
    if (warning.code !== 'ERR_UBLK_BLOCKED') warnings.push(warning);
  });
  return warnings;
}

withUblk('a handler that answers twice', () => {
  afterEach(expectNoDevices);

  test('with a promise that settles twice is heard once', async (context) => {
    const disk = Buffer.alloc(SIZE);
    const twice = (again: () => void): Promise<void> =>
      ({
        // oxlint-disable-next-line unicorn/no-thenable -- that is what is tested
        then(resolve: () => void, reject: (reason: unknown) => void) {
          resolve();
          setTimeout(() => [again(), resolve(), reject(new IoError('ENOSPC'))], 1);
        },
      }) as unknown as Promise<void>;
    let settledAgain = 0;
    const target = handler({
      size: SIZE,
      read({ data, offset }) {
        disk.copy(data, 0, offset);
        return twice(() => (settledAgain += 1));
      },
      write({ data, offset }) {
        data.copy(disk, offset);
        return twice(() => (settledAgain += 1));
      },
    });
    await using device = await createOrSkip(context, { target, ...SHAPE });
    const warnings = warningsOf(device);
    await fioVerify(device, ['--size=2M']);
    expect(settledAgain).toBeGreaterThan(0);
    expect(device.stats().total.errors).toBe(0);
    expect(warnings).toEqual([]);
  });

  describe.each(['auto', 'copy'] as const)('with steps (%s)', (buffers) => {
    test('that come after its answer touches no other request', async (context) => {
      const file = targets.file(sparseImage(SIZE));
      const after: Promise<string>[] = [];
      /** Where the device has nothing else, and what it must not do to another's data. */
      const again = async (request: HandlerRequest<'file'>, op: 'read' | 'write') => {
        await sleep(Math.random() * 3);
        return request[op]('file', SIZE / 2).then(
          () => 'done',
          ({ code }: UblkError) => code,
        );
      };
      const target = handler<'file'>({
        size: SIZE,
        backends: { file },
        async read(request) {
          await request.read('file', request.offset);
          after.push(again(request, 'write'));
        },
        async write(request) {
          await request.write('file', request.offset);
          after.push(again(request, 'read'));
        },
      });
      await using device = await createOrSkip(context, { target, buffers, ...SHAPE });
      await fioVerify(device, ['--size=2M']);
      expect(device.stats().total.errors).toBe(0);
      expect(new Set(await Promise.all(after))).toEqual(new Set(['ERR_UBLK_LATE_ANSWER']));
    });

    test('that run when it throws fails that request and no other', async (context) => {
      const target = handler<'file'>({
        size: SIZE,
        backends: { file: targets.file(sparseImage(SIZE)) },
        read(request) {
          if (request.offset < SIZE / 2) return { backend: 'file', offset: request.offset };
          void request.read('file', SIZE / 2);
          throw new IoError('ENODATA');
        },
        write: ({ offset }) => ({ backend: 'file', offset }),
      });
      await using device = await createOrSkip(context, { target, buffers, ...SHAPE });
      const warnings = warningsOf(device);
      const load = { isOver: false };
      const failing = async (): Promise<void> => {
        const read = [`if=${device.path}`, 'of=/dev/null', 'bs=4k', `skip=${SIZE / 2 / 4096}`];
        do {
          const { stderr } = await execa('dd', [...read, 'iflag=direct'], { reject: false });
          expect(stderr).toContain('No data available');
        } while (!load.isOver);
      };
      const work = fioVerify(device, ['--size=4M']).finally(() => (load.isOver = true));
      await Promise.all([failing(), work]);
      expect(warnings).toEqual([]);
    });
  });
});
