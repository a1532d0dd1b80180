import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';

import { afterEach, expect, test, vi } from 'vitest';

import {
  createDevice,
  deleteDevice,
  getDeviceInfo,
  listDevices,
  stopDevice,
  targets,
  type Device,
} from '../../src/index.ts';
import { randomImage, sparseImage } from './image.ts';
import {
  deviceIds,
  expectNoDevices,
  holdings,
  IO_FLUSHER,
  need,
  queueThreads,
  threadFlags,
  withUblk,
} from './machine.ts';

const target = targets.null({ size: '64MiB' });

withUblk('the life of a device', () => {
  afterEach(expectNoDevices);

  test('is listed and described while it is open, and not after', async () => {
    await using device = await createDevice({ target, queues: 2 });
    const described = { id: device.id, path: device.path, state: 'live', size: 64 << 20 };
    const served = { ...described, serverPid: process.pid, queues: 2, readOnly: false };
    expect(await getDeviceInfo(device.id)).toMatchObject(served);
    expect(await listDevices()).toEqual([await getDeviceInfo(device.id)]);
    await device.close();
    expect(await listDevices()).toEqual([]);
    await expect(getDeviceInfo(device.id)).rejects.toMatchObject({ code: 'ERR_UBLK_NO_DEVICE' });
  });

  test('several of one process serve side by side', async () => {
    const devices = await Promise.all([1, 2, 3].map(() => createDevice({ target })));
    expect(new Set(devices.map((device) => device.path)).size).toBe(3);
    await Promise.all(devices.map((device) => device.close()));
  });

  test('close() can be called again and again, also after the end', async () => {
    await using device = await createDevice({ target });
    await Promise.all([device.close(), device.close(), device[Symbol.asyncDispose]()]);
    await device.close();
    await expect(device.closed).resolves.toBe('closed');
    expect(device.stats().queues).toHaveLength(1);
  });

  test('stopped by somebody else, it ends and is removed', async () => {
    await using device = await createDevice({ target });
    const closed = once(device, 'close');
    await stopDevice(device.id);
    await closed;
    await expect(device.closed).resolves.toBe('stopped');
    expect(deviceIds()).toEqual([]);
  });

  test('deleted by somebody else, it ends', async () => {
    await using device = await createDevice({ target });
    await deleteDevice(device.id);
    await expect(device.closed).resolves.toBe('stopped');
  });

  test('an abort while it is created leaves nothing', async () => {
    const controller = new AbortController();
    const created = createDevice({ target }, { signal: controller.signal });
    controller.abort();
    await expect(created).rejects.toMatchObject({ name: 'AbortError' });
    expect(deviceIds()).toEqual([]);
  });

  test('what clients have left in the page cache is written, however long that takes', async (context) => {
    await need(context, 'NO_AUTO_PART_SCAN');
    const { path, bytes } = randomImage(24 * 4096);
    const target = targets.delay(targets.file(path), { writeUs: 500_000 });
    const timeoutMs = 5_000;
    const one = { queues: 1, depth: 1, maxIoBytes: 4096, partScan: false };
    await using device = await createDevice({ target, ...one, timeoutMs });
    const left = bytes.toReversed();
    const file = await open(device.path, 'r+');
    await file.write(left);
    const begun = Date.now();
    await Promise.all([device.close(), file.close()]);
    expect(Date.now() - begun).toBeGreaterThan(timeoutMs);
    expect(readFileSync(path).equals(left)).toBe(true);
  });

  test('a close that takes long names the client that it waits for', async () => {
    const { path } = randomImage(24 * 4096);
    const target = targets.delay(targets.file(path), { writeUs: 500_000 });
    const device = await createDevice({ target, queues: 1, depth: 1, maxIoBytes: 4096 });
    const warnings: string[] = [];
    // The kernel removes the device only once the client has gone.
    device.on('warning', ({ message }) => (warnings.push(message), client.stdin.end()));
    const script = `exec 3<>${device.path}; head -c 98304 /dev/urandom >&3; echo; read _`;
    const client = spawn('sh', ['-c', script]);
    await once(client.stdout, 'data');
    await Promise.all([device.close(), once(client, 'exit')]);
    expect(warnings).toEqual([
      expect.stringMatching(
        new RegExp(
          `^${device.path} has not ended after 3 s; its users: open in process ${client.pid} `,
        ),
      ),
    ]);
  });

  test('closing it during I/O ends the I/O, and nothing hangs', async () => {
    const { path } = randomImage(4 << 20);
    await using device = await createDevice({ target: targets.file(path), queues: 2, depth: 8 });
    let requests = 0;
    const load = Array.from({ length: 4 }, async (_, worker) => {
      await using file = await open(device.path, 'r+');
      const bytes = Buffer.alloc(64 << 10, worker);
      for (;;) {
        await file.write(bytes, 0, bytes.length, worker << 20);
        await file.datasync();
        requests += 1;
      }
    });
    const ended = Promise.allSettled(load);
    await vi.waitFor(() => expect(requests).toBeGreaterThan(8), { timeout: 60_000 });
    await device.close();
    expect((await ended).map((one) => one.status)).toEqual(load.map(() => 'rejected'));
  });

  test('its threads never wait for the writeback that waits for them', async () => {
    await using device = await createDevice({ target: targets.null({ size: '1MiB' }), queues: 2 });
    const flags = queueThreads(device.id).map((task) => threadFlags(task) & IO_FLUSHER);
    expect(flags).toEqual([IO_FLUSHER, IO_FLUSHER]);
  });

  test('a client that is killed leaves nothing in flight', async () => {
    const { path, bytes } = randomImage(8 << 20);
    const device = await createDevice({ target: targets.file(path) });
    const load = ['--rw=randread', '--ioengine=libaio', '--iodepth=32', '--direct=1', '--thread'];
    const endless = ['--name=client', '--time_based', '--runtime=600'];
    const client = spawn('fio', [`--filename=${device.path}`, ...endless, ...load]);
    await vi.waitFor(() => expect(device.stats().total.reads).toBeGreaterThan(100), 60_000);
    client.kill('SIGKILL');
    await once(client, 'exit');
    await using file = await open(device.path, 'r');
    expect((await file.readFile()).equals(bytes)).toBe(true);
    await file.close();
    await device.close();
    expect(device.stats().total.errors).toBe(0);
  });

  test('a hundred times over leaves no thread and no open file behind', async () => {
    const images = Array.from({ length: 5 }, () => sparseImage(1 << 20));
    // The program holds the devices, so that the garbage collector ends nothing.
    const devices: Device[] = [];
    const cycle = async (path: string) => {
      await using device = await createDevice({ target: targets.file(path), queues: 2 });
      devices.push(device);
      await using file = await open(device.path, 'r');
      await file.read(Buffer.alloc(4096), 0, 4096, 0);
      await file.close();
      await device.close();
    };
    // Several at once, which wait for udev together.
    const cycles = () => Promise.all(images.map(cycle));
    await cycles();
    const before = holdings();
    for (let i = 0; i < 20; i += 1) await cycles();
    await vi.waitFor(
      () => expect(holdings().threads.length).toBeLessThanOrEqual(before.threads.length),
      30_000,
    );
    expect(holdings().files).toBeLessThanOrEqual(before.files);
    expect(deviceIds()).toEqual([]);
  });
});
