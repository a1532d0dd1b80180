import { once } from 'node:events';
import { open } from 'node:fs/promises';
import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { execa } from 'execa';
import { afterEach, expect, test, type TestContext } from 'vitest';

import {
  createDevice,
  getDeviceInfo,
  listDevices,
  targets,
  UblkError,
  type Device,
  type DeviceOptions,
} from '../../src/index.ts';
import { sparseImage } from './image.ts';
import { deviceIds, expectNoDevices, isTestMachine, need, withUblk } from './machine.ts';

const target = targets.null({ size: '64MiB' });

withUblk('control commands', () => {
  afterEach(expectNoDevices);

  test.for([0, 1, 2])(
    'a device is closed where %i more tasks may run',
    { timeout: 60_000 },
    async (more, context) => {
      onlyOnTestMachine(context);
      const device = await createDevice({ target });
      // Longer than io_uring keeps a worker that has nothing to do.
      await sleep(6000);
      await withTaskLimit(more, () => device.close());
      expect(deviceIds()).toEqual([]);
    },
  );

  test('a device that no task can be made for is refused, and the limits named', async (context) => {
    onlyOnTestMachine(context);
    await (await createDevice({ target })).close();
    for (const more of [0, 1, 2, 3, 4]) {
      await withTaskLimit(more, async () => {
        const created = await createDevice({ target, queues: 4 }).then(
          (device) => device.close(),
          (error: unknown) => error,
        );
        // Idle threads of the device before may be enough for all but the queues.
        if (created === undefined && more > 1) return;
        expect(created).toMatchObject({ hint: expect.stringContaining('pids.max') });
      });
      expect(deviceIds()).toEqual([]);
    }
  });

  test('a queue setting that no task can be made for is refused, and the limits named', async (context) => {
    onlyOnTestMachine(context);
    const create = () => createDevice({ target, queue: { nomerges: 2 } });
    const told: unknown[] = [];
    for (let more = 0; more <= 12; more += 1) {
      await withTaskLimit(more, async () => {
        await create().then(
          (device) => device.close(),
          (error: unknown) => told.push(error),
        );
      });
      expect(deviceIds()).toEqual([]);
    }
    const limits = { hint: expect.stringContaining('pids.max') };
    expect(told).toEqual(told.map(() => expect.objectContaining(limits)));
    expect(told).toContainEqual(
      expect.objectContaining({ message: expect.stringContaining('queue/nomerges: clone') }),
    );
    expect(told.length).toBeLessThan(13);
  });

  test('no device waits for another whose stop waits for a slow request', async (context) => {
    await need(context, 'NO_AUTO_PART_SCAN');
    const slow = targets.delay(target, { readUs: 8_000_000 });
    const other = await createDevice({ target });
    const stopping = await createDevice({ target: slow, partScan: false });
    const client = await open(stopping.path, 'r');
    const read = client.read(Buffer.alloc(4096), 0, 4096, 0).catch(() => {});
    await expect
      .poll(() => readFileSync(`/sys/block/ublkb${stopping.id}/inflight`, 'utf8').trim())
      .toMatch(/^[1-9]/);
    let stopped = false;
    const closed = stopping.close().then(() => (stopped = true));
    const listed = await listDevices();
    expect(listed.map((device) => device.id)).toEqual([other.id, stopping.id].sort());
    expect(await getDeviceInfo(other.id)).toMatchObject({ size: 64 << 20, readOnly: false });
    await other.close();
    await (await createDevice({ target })).close();
    expect(stopped).toBe(false);
    await read;
    await client.close();
    await closed;
  });

  test(
    'a device is closed though its number is taken at once',
    { timeout: 60_000 },
    async (context) => {
      await need(context, 'NO_AUTO_PART_SCAN');
      const options = { target, id: 41, partScan: false } as const;
      let gone = await createDevice(options);
      for (let round = 0; round < 5; round++) {
        const closed = gone.close();
        const next = await takeNumber(options);
        await closed;
        await gone.close();
        expect(await getDeviceInfo(next.id)).toMatchObject({ id: 41, state: 'live' });
        gone = next;
      }
      await gone.close();
    },
  );

  test('a device that no file can be opened for is refused, and the limit named', async (context) => {
    onlyOnTestMachine(context);
    const backing = targets.file(sparseImage(1 << 20));
    await (await createDevice({ target: backing })).close();
    // Each limit fails another call: the control device, rings, event descriptors, the target's files.
    for (let more = 0; more < 64; more++) {
      const created = await withFileLimit(more, () =>
        createDevice({ target: backing, queues: 2 }),
      ).then(
        (device) => device.close(),
        (error: unknown) => error,
      );
      if (created === undefined) return;
      expect(created).toBeInstanceOf(UblkError);
      expect(created).toMatchObject({
        code: 'ERR_UBLK_RESOURCES',
        hint: expect.stringContaining('ulimit -n'),
      });
      expect(deviceIds()).toEqual([]);
    }
    throw new Error('no device fits into the limits');
  });

  test('a closed device changes nothing of the device that has its number now', async (context) => {
    await need(context, 'UPDATE_SIZE', 'QUIESCE');
    const options = { target, id: 40, recovery: 'queue' } as const;
    const gone = await createDevice(options);
    await gone.close();
    await using lives = await createDevice(options);
    await expect(gone.resize('1MiB')).rejects.toMatchObject({ code: 'ERR_UBLK_CLOSED' });
    await expect(gone.quiesce()).rejects.toMatchObject({ code: 'ERR_UBLK_CLOSED' });
    await gone.close();
    expect(await getDeviceInfo(lives.id)).toMatchObject({ state: 'live', size: 64 << 20 });
  });
});

/** Creates a device with a number as soon as the number is free. */
async function takeNumber(options: DeviceOptions): Promise<Device> {
  for (;;) {
    try {
      return await createDevice(options);
    } catch (error) {
      if (!(error instanceof UblkError) || error.code !== 'ERR_UBLK_DEVICE_EXISTS') throw error;
    }
  }
}

/** Does `work` while this process may open `more` files beside the files that it has. */
async function withFileLimit<T>(more: number, work: () => Promise<T>): Promise<T> {
  const [, usual] = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))!;
  // Started before: this process can start none within the limit.
  const set = `prlimit --pid ${process.pid} --nofile=`;
  const script = `read lowered; ${set}$lowered: && echo lowered; read end; ${set}${usual}:`;
  const limits = execa('sh', ['-c', script], { buffer: false });
  const open = new Set(readdirSync('/proc/self/fd').map(Number));
  let lowered = 0;
  for (let free = 0; free < more || open.has(lowered); lowered++) free += open.has(lowered) ? 0 : 1;
  limits.stdin.write(`${lowered}\n`);
  await once(limits.stdout, 'data');
  try {
    return await work();
  } finally {
    limits.stdin.end('\n');
    await limits;
  }
}

const GROUP = '/sys/fs/cgroup/ublk-test';

/** Does `work` while no more than so many tasks may join those that this process has. */
async function withTaskLimit(more: number, work: () => Promise<void>): Promise<void> {
  writeFileSync('/sys/fs/cgroup/cgroup.subtree_control', '+pids');
  mkdirSync(GROUP, { recursive: true });
  writeFileSync(`${GROUP}/cgroup.procs`, String(process.pid));
  try {
    const tasks = Number(readFileSync(`${GROUP}/pids.current`, 'utf8'));
    writeFileSync(`${GROUP}/pids.max`, String(tasks + more));
    await work();
  } finally {
    writeFileSync(`${GROUP}/pids.max`, 'max');
    writeFileSync('/sys/fs/cgroup/cgroup.procs', String(process.pid));
    rmdirSync(GROUP);
  }
}

function onlyOnTestMachine(context: TestContext): void {
  if (!isTestMachine) context.skip('limits the tasks of this process: only on the test machine');
}
