import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { hearWishes, wishFor } from '../../../src/cli/sharing.ts';
import { Device } from '../../../src/device.ts';
import type { NativeEnd } from '../../../src/native.ts';
import { fakeDevice } from '../fake-device.ts';

let folder!: string;
let native!: ReturnType<typeof fakeDevice>;
let device!: Device;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ublk-'));
  let end!: (end: NativeEnd) => void;
  const ended = new Promise<NativeEnd>((resolve) => (end = resolve));
  native = fakeDevice(end);
  native.buffers = () => ({ mode: 'copy', userCopy: false, shared: true });
  device = new Device(native, ended);
});

afterEach(async () => {
  await device.close();
  rmSync(folder, { recursive: true });
});

test('memory is shared and taken back at the wish of another process', async () => {
  const wishes = await hearWishes(device, folder);
  const shared = { share: '/dev/shm/clients', readOnly: true };
  expect(await wishFor(device.id, shared, folder)).toBe(3);
  expect(native.share).toHaveBeenCalledWith('/dev/shm/clients', true);
  expect(await wishFor(device.id, { unshare: 3 }, folder)).toBe(3);
  expect(native.unshare).toHaveBeenCalledWith(3);
  await expect(wishFor(device.id, { unshare: 3 }, folder)).rejects.toThrow('no memory 3');
  await wishes[Symbol.asyncDispose]();
  expect(readdirSync(folder)).toEqual([]);
});

test('what the device refuses is told with its hint', async () => {
  const failure = { code: 'ERR_UBLK_INVALID_ARGUMENT', message: 'too long', hint: 'at most 4 GiB' };
  native.share.mockResolvedValue({ failure });
  await using _wishes = await hearWishes(device, folder);
  const shared = { share: '/dev/shm/clients', readOnly: false };
  await expect(wishFor(device.id, shared, folder)).rejects.toMatchObject(failure);
});

test('a device that shares no memory hears nothing', async () => {
  native.buffers = () => ({ mode: 'copy', userCopy: false, shared: false });
  await using _wishes = await hearWishes(new Device(native, new Promise(() => {})).unref(), folder);
  await expect(wishFor(device.id, { unshare: 0 }, folder)).rejects.toThrow('no server of device 7');
});

test('a client that says nothing is let go with the device', async () => {
  const wishes = await hearWishes(device, folder);
  const client = connect({ path: join(folder, `ublkb${device.id}.sock`), allowHalfOpen: true });
  await once(client, 'connect');
  const closed = once(client.resume(), 'close');
  client.on('end', () => client.end());
  await wishes[Symbol.asyncDispose]();
  await closed;
  expect(client.destroyed).toBe(true);
});

test('a client that says too much is let go', async () => {
  await using _wishes = await hearWishes(device, folder);
  const client = connect(join(folder, `ublkb${device.id}.sock`));
  const closed = new Promise((resolve) =>
    client.resume().on('error', resolve).on('close', resolve),
  );
  client.write('x'.repeat(1 << 20));
  await closed;
  expect(native.share).not.toHaveBeenCalled();
});

test.each(['/proc/self/fd/0', '/proc/thread-self/fd/0', '/dev/fd/0', '/dev/stdin'])(
  "%s is the client's, and the server does not take it for its own",
  async (path) => {
    await using _wishes = await hearWishes(device, folder);
    await wishFor(device.id, { share: path, readOnly: true }, folder);
    const [shared] = native.share.mock.calls.at(-1)!;
    expect(shared).toMatch(new RegExp(`^/proc/${process.pid}/(task/\\d+/)?fd/0$`));
    const client = connect({ path: join(folder, `ublkb${device.id}.sock`), allowHalfOpen: true });
    client.end(JSON.stringify({ share: path, readOnly: true }));
    const answer = JSON.parse((await client.setEncoding('utf8').toArray()).join('')) as object;
    expect(answer).toMatchObject({ failure: { code: 'ERR_UBLK_INVALID_ARGUMENT' } });
  },
);
