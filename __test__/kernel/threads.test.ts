import { setTimeout as pause } from 'node:timers/promises';

import { afterEach, expect, test, vi } from 'vitest';

import {
  createReactorPool,
  deleteDevice,
  getDeviceInfo,
  recoverDevice,
  targets,
} from '../../src/index.ts';
import { fioVerify } from './fio.ts';
import { sparseImage } from './image.ts';
import { createOrSkip, expectNoDevices, need, serverThreads, withUblk } from './machine.ts';
import { startServer } from './server.ts';

const MIB = 1024 * 1024;
/** How buffers reach them: see verify.test.ts. */
const SHAPES = [
  { queues: 1, threads: 2 },
  { queues: 2, threads: 3 },
  { queues: 2, threads: 4 },
];

withUblk('threads that share the tags of all queues', () => {
  afterEach(expectNoDevices);

  test.for(SHAPES)(
    'keep what fio wrote ($queues queues, $threads threads)',
    async (shape, context) => {
      await need(context, 'PER_IO_DAEMON');
      const target = targets.file(sparseImage(64 * MIB));
      await using device = await createOrSkip(context, { target, depth: 16, ...shape });
      const expected = Array.from({ length: shape.threads }, (_, at) => `ublk${device.id}t${at}`);
      expect(serverThreads(device.id)).toEqual(expected);
      await fioVerify(device, ['--size=16M']);
      expect(device.stats().total.errors).toBe(0);
    },
  );

  test('may be those of a pool', async (context) => {
    await need(context, 'PER_IO_DAEMON');
    const pool = await createReactorPool({ reactors: 2 });
    const options = { target: targets.file(sparseImage(64 * MIB)), pool, threads: 3, depth: 16 };
    await using device = await createOrSkip(context, options);
    await fioVerify(device, ['--size=16M']);
    expect(serverThreads(device.id)).toEqual([]);
  });

  test.for(['reissue', 'queue', 'fail'] as const)(
    'may be killed, and others take their place (recovery %s)',
    async (recovery, context) => {
      await need(context, 'PER_IO_DAEMON', 'USER_RECOVERY_FAIL_IO');
      const path = sparseImage(64 * MIB);
      const shape = ['--queues', '2', '--depth', '16', '--recovery', recovery];
      let { server } = await startServer('add', 'file', path, '--threads', '3', ...shape);
      const more = ['--size=24M', '--loops=3'];
      const load = fioVerify({ path: '/dev/ublkb0' }, more).catch((error: unknown) => error);
      for (const threads of ['2', '4']) {
        await pause(1500);
        server.kill('SIGKILL');
        await server;
        await vi.waitFor(
          async () => expect((await getDeviceInfo(0)).state).toMatch(/^(quiesced|fail-io)$/),
          { timeout: 60_000 },
        );
        ({ server } = await startServer('recover', '0', 'file', path, '--threads', threads));
      }
      const trouble = await load;
      // Otherwise what the dead server had fails.
      if (recovery === 'reissue' && trouble) throw trouble;
      await fioVerify({ path: '/dev/ublkb0' }, ['--size=8M']);
      // SIGTERM leaves a device with recovery to the next server.
      server.kill('SIGTERM');
      expect((await server).exitCode).toBe(0);
      await deleteDevice(0);
    },
  );

  test('are quiesced, and others take their place', async (context) => {
    await need(context, 'PER_IO_DAEMON', 'QUIESCE');
    const target = targets.file(sparseImage(64 * MIB));
    const options = { target, queues: 2, threads: 4, depth: 16, recovery: 'reissue' } as const;
    let device = await createOrSkip(context, options);
    const load = fioVerify(device, ['--size=16M', '--loops=2']);
    for (const threads of [3, undefined]) {
      await pause(1500);
      await device.quiesce();
      expect(await device.closed).toBe('quiesced');
      device = await recoverDevice(device.id, { target, threads });
    }
    await load;
    await device.close();
  });

  test('are refused where one command is for many tags', async (context) => {
    await need(context, 'BATCH_IO', 'USER_RECOVERY_REISSUE');
    const target = targets.file(sparseImage(64 * MIB));
    const options = { target, exchange: 'batch', recovery: 'reissue' } as const;
    const message = "threads and exchange 'batch' exclude each other";
    await expect(createOrSkip(context, { ...options, threads: 2 })).rejects.toThrow(message);
    const device = await createOrSkip(context, options);
    await device.quiesce();
    await expect(recoverDevice(device.id, { target, threads: 2 })).rejects.toThrow(message);
    await using again = await recoverDevice(device.id, { target, threads: 1 });
    await fioVerify(again, ['--size=4M']);
  });
});
