import { setTimeout as pause } from 'node:timers/promises';

import { afterEach, expect, test, vi } from 'vitest';

import { getDeviceInfo, recoverDevice, setDeviceAffinity, targets } from '../../src/index.ts';
import { fioVerify } from './fio.ts';
import { sparseImage } from './image.ts';
import { createOrSkip, expectNoDevices, need, serverThreads, withUblk } from './machine.ts';
import { startServer } from './server.ts';

const MIB = 1024 * 1024;
const SHAPES = [
  { queues: 1 },
  { queues: 2 },
  { queues: 2, splitRegister: true },
  { queues: 2, threads: 3 },
  { queues: 1, exchange: 'batch' },
  { queues: 2, exchange: 'batch' },
] as const;

withUblk('a device whose rings are apart', () => {
  afterEach(expectNoDevices);

  test.for(SHAPES)('keeps what fio wrote (%o)', async (shape, context) => {
    await need(context, 'BUF_REG_OFF_DAEMON', 'exchange' in shape ? 'BATCH_IO' : 'PER_IO_DAEMON');
    const options = {
      target: targets.file(sparseImage(64 * MIB)),
      ringsApart: true,
      depth: 32,
      ...shape,
    };
    await using device = await createOrSkip(context, options);
    expect(device.buffers.mode).toBe('register');
    const names = serverThreads(device.id);
    const fronts = names.filter((name) => !name.endsWith('b'));
    expect(names).toEqual(fronts.flatMap((name) => [name, `${name}b`]));
    expect(fronts).toHaveLength('threads' in shape ? shape.threads : device.queues);
    expect(await setDeviceAffinity(device.id, [0, 1])).toBe(names.length);
    await fioVerify(device, ['--size=16M']);
    const { total } = device.stats();
    expect(total.errors).toBe(0);
    expect(total.writeBytes).toBeGreaterThanOrEqual(16 * MIB);
    expect(total.registrations).toBeGreaterThan(0);
  });

  test.for([['per-io'], ['batch']] as const)(
    'outlives its server (%s)',
    async ([exchange], context) => {
      const needed = exchange === 'batch' ? ['BATCH_IO'] : [];
      await need(context, 'BUF_REG_OFF_DAEMON', 'QUIESCE', ...needed);
      const path = sparseImage(64 * MIB);
      const shape = ['--queues', '2', '--recovery', 'reissue', '--exchange', exchange];
      const first = await startServer('add', 'file', path, '--rings-apart', ...shape);
      const load = fioVerify({ path: '/dev/ublkb0' }, ['--size=24M', '--loops=4']);
      await pause(1500);
      first.server.kill('SIGKILL');
      await first.server;
      await vi.waitFor(async () => expect((await getDeviceInfo(0)).state).toBe('quiesced'), {
        timeout: 60_000,
      });
      const target = targets.file(path);
      const second = await recoverDevice(0, { target, ringsApart: true });
      await pause(1500);
      await second.quiesce();
      await using third = await recoverDevice(0, { target });
      await load;
      expect(third.buffers.mode).toBe('register');
    },
  );

  test('is refused where it cannot be', async (context) => {
    await need(context, 'BUF_REG_OFF_DAEMON', 'AUTO_BUF_REG', 'USER_RECOVERY');
    const target = targets.file(sparseImage(64 * MIB));
    const message = "ringsApart and buffers 'auto' exclude each other";
    const auto = { target, buffers: 'auto', recovery: 'reissue' } as const;
    await expect(createOrSkip(context, { ...auto, ringsApart: true })).rejects.toThrow(message);
    const device = await createOrSkip(context, auto);
    await device.quiesce();
    await expect(recoverDevice(device.id, { target, ringsApart: true })).rejects.toThrow(message);
    await using _again = await recoverDevice(device.id, { target });
  });
});
