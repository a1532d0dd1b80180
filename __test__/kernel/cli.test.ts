import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';
import { afterEach, expect, test, vi } from 'vitest';

import {
  createDevice,
  deleteDevice,
  getDeviceInfo,
  targets,
  type DeviceInfo,
  type Feature,
} from '../../src/index.ts';
import { randomImage, temporaryFolder } from './image.ts';
import { expectNoDevices, need, withUblk } from './machine.ts';

const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

async function json(...args: string[]): Promise<unknown> {
  const { stdout } = await execa('node', [CLI, ...args, '--json']);
  return JSON.parse(stdout);
}

/** Starts `ublk add` and waits for its first line, which says that the device is ready. */
async function add(...args: string[]) {
  const server = execa('node', [CLI, 'add', ...args], { reject: false, buffer: true });
  for await (const line of createInterface({ input: server.stdout })) return { server, line };
  throw new Error(`ublk add ended before the device was ready: ${(await server).stderr}`);
}

withUblk('ublk', () => {
  afterEach(expectNoDevices);

  test('leaves a device in use to the next server when its pid file cannot be written', async (context) => {
    await need(context, 'USER_RECOVERY_REISSUE', 'SAFE_STOP_DEV');
    const target = targets.null({ size: '1MiB' });
    const device = await createDevice({ target, recovery: 'reissue', name: 'data' });
    const client = await open(device.path, 'r');
    await device.quiesce();
    const config = join(temporaryFolder(), 'ublk.json');
    writeFileSync(config, JSON.stringify({ devices: { data: { target, recovery: 'reissue' } } }));
    for (const words of [
      ['recover', '0'],
      ['serve', config],
    ]) {
      const pidFile = ['--pid-file', '/nowhere/pid'];
      const { exitCode, stderr } = await execa('node', [CLI, ...words, ...pidFile], {
        reject: false,
        timeout: 60_000,
      });
      expect({ exitCode, stderr }).toEqual({
        exitCode: 2,
        stderr: expect.stringContaining('/nowhere/pid') as string,
      });
      expect((await getDeviceInfo(0)).state).toBe('quiesced');
    }
    await client.close();
    await deleteDevice(0);
  });

  test('add serves an image, with its path on stdout and a pid file, until SIGTERM', async () => {
    const { path } = randomImage(1 << 20);
    const pidFile = join(temporaryFolder(), 'pid');
    const { server, line } = await add('file', path, '--pid-file', pidFile);
    expect(line).toBe('/dev/ublkb0');
    expect(existsSync(line)).toBe(true);
    expect(readFileSync(pidFile, 'utf8')).toBe(`${server.pid}\n`);
    server.kill('SIGTERM');
    const { exitCode, stdout, stderr } = await server;
    expect(exitCode).toBe(0);
    expect(stdout).toBe('/dev/ublkb0');
    expect(stderr).toMatch(/^\/dev\/ublkb0 serves .*disk.img \(1 MiB, read-write, 1 x 128/);
    expect(stderr).toMatch(/\/dev\/ublkb0 closed: \d+ reads/);
    expect(existsSync(pidFile)).toBe(false);
  });

  test.each(['SIGINT', 'SIGHUP'] as const)('add ends in good order at %s', async (signal) => {
    const { server } = await add('null', '--size', '1MiB');
    server.kill(signal);
    expect((await server).exitCode).toBe(0);
  });

  test('add --json describes the device that all other commands see', async () => {
    const flags = ['--size', '64MiB', '--queues', '2', '--depth', '16', '--id', '3'];
    const { server, line } = await add('null', ...flags, '--json');
    const added = JSON.parse(line) as DeviceInfo & { pid: number };
    const asked = { id: 3, path: '/dev/ublkb3', size: 64 << 20, queues: 2, depth: 16 };
    expect(added).toMatchObject({ ...asked, pid: server.pid });
    const described = { ...asked, state: 'live', serverPid: server.pid, readOnly: false };
    expect(await json('list')).toEqual([expect.objectContaining(described)]);
    expect(await json('info', '3')).toMatchObject(described);
    expect(await json('stop', '3')).toMatchObject({ id: 3, stopped: true });
    const { exitCode, stderr } = await server;
    expect(exitCode).toBe(0);
    expect(stderr).toContain('/dev/ublkb3 stopped: ');
  });

  test('add --background answers when the device is ready, and leaves a server behind', async () => {
    const flags = ['--size', '1MiB', '--background', '--json'];
    const added = (await json('add', 'null', ...flags)) as DeviceInfo & { pid: number };
    expect(added).toMatchObject({ id: 0, size: 1 << 20 });
    const [session] = readFileSync(`/proc/${added.pid}/stat`, 'utf8')
      .split(') ')[1]!
      .split(' ')
      .slice(3);
    expect(Number(session)).toBe(added.pid);
    expect(await json('info', '0')).toMatchObject({ state: 'live', serverPid: added.pid });
    await json('stop', '0');
    await vi.waitFor(() => expect(existsSync(`/proc/${added.pid}`)).toBe(false), 10_000);
  });

  test('add --background fails as the server does', async () => {
    const args = [CLI, 'add', 'file', '/nowhere/disk.img', '--background'];
    const { exitCode, stdout, stderr } = await execa('node', args, { reject: false });
    expect(exitCode).toBe(1);
    expect(stdout).toBe('');
    expect(stderr).toContain('ERR_UBLK_NO_BACKEND');
  });

  test('delete removes a device whose server was killed', async () => {
    const { server } = await add('null', '--size', '1MiB');
    server.kill('SIGKILL');
    await server;
    const [left] = (await json('list')) as DeviceInfo[];
    expect(left).toMatchObject({ id: 0, state: 'dead' });
    expect(await json('delete', '0')).toEqual({ id: 0, deleted: true });
    expect(await json('list')).toEqual([]);
  });

  test('features names what the kernel has', async () => {
    const features = (await json('features')) as Feature[];
    expect(features).toContainEqual({ name: 'CMD_IOCTL_ENCODE', since: '6.4', supported: true });
    expect(features.every((one) => /^[A-Z_]+$/.test(one.name))).toBe(true);
  });

  test('doctor finds this machine fit', async () => {
    const { ok, findings } = (await json('doctor')) as { ok: boolean; findings: object[] };
    expect(ok).toBe(true);
    expect(findings).toContainEqual(expect.objectContaining({ name: 'driver', status: 'ok' }));
  });
});
