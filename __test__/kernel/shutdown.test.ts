import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';
import { afterEach, expect, onTestFinished, test, vi } from 'vitest';

import { getDeviceInfo } from '../../src/index.ts';
import { mountPoint } from './filesystem.ts';
import { sparseImage } from './image.ts';
import { deviceIds, expectNoDevices, need, withUblk } from './machine.ts';
import { startServer, ublk } from './server.ts';

const BIN = fileURLToPath(new URL('../../bin/ublk', import.meta.url));

type Server = Awaited<ReturnType<typeof startServer>>['server'];

/** Sends a signal; unlike `kill` of execa no SIGKILL follows. */
function send({ pid }: { readonly pid?: number | undefined }, signal: NodeJS.Signals): void {
  process.kill(pid ?? 0, signal);
}

/** What a server says on stderr, as it says it. */
function heard(server: Server): () => string {
  let text = '';
  server.stderr.on('data', (part: Buffer) => (text += part.toString()));
  return () => text;
}

/** A file on a mounted ext4, written and not synced. */
async function dirtyMount(path: string) {
  const folder = mountPoint();
  await execa('mkfs.ext4', ['-q', path]);
  await execa('mount', [path, folder]);
  onTestFinished(async () => void (await execa('umount', [folder], { reject: false })));
  const bytes = randomBytes(4 << 20);
  const file = join(folder, 'file');
  writeFileSync(file, bytes);
  return { folder, file, bytes };
}

/** The file, from another server of the same image. */
async function storedFile(image: string): Promise<Buffer> {
  const { server, path } = await startServer('add', 'file', image, '--read-only');
  const folder = mountPoint();
  await execa('mount', ['-o', 'ro', path, folder]);
  const bytes = readFileSync(join(folder, 'file'));
  await execa('umount', [folder]);
  send(server, 'SIGTERM');
  await server;
  return bytes;
}

const inTime = { timeout: 20_000, interval: 100 };

async function untilSaid(said: () => string, text: string): Promise<void> {
  await vi.waitFor(() => expect(said()).toContain(text), inTime);
}

withUblk('a server that a signal ends', () => {
  afterEach(expectNoDevices);

  test.each(['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR2'] as const)(
    'at %s serves a mounted device on until it is unmounted, and loses nothing',
    async (signal) => {
      const image = sparseImage(64 << 20);
      const { server, path } = await startServer('add', 'file', image);
      const said = heard(server);
      const { folder, file, bytes } = await dirtyMount(path);
      send(server, signal);
      await vi.waitFor(() => expect(said()).toContain(`in use: mounted on ${folder}`), inTime);
      expect(await getDeviceInfo(0)).toMatchObject({ state: 'live', serverPid: server.pid });
      writeFileSync(`${file}-2`, bytes, { flush: true });
      await execa('umount', [folder]);
      const { exitCode, stderr } = await server;
      expect(exitCode).toBe(0);
      expect(stderr).toMatch(/\/dev\/ublkb0 closed: \d+ reads/);
      expect((await storedFile(image)).equals(bytes)).toBe(true);
    },
  );

  test('waits for a process that has the device open, and names it', async () => {
    const { server, path } = await startServer('add', 'null', '--size', '1MiB');
    const said = heard(server);
    const file = await open(path, 'r');
    send(server, 'SIGTERM');
    await vi.waitFor(() => expect(said()).toContain(`open in process ${process.pid} (`), inTime);
    expect(deviceIds()).toEqual([0]);
    await file.close();
    expect((await server).exitCode).toBe(0);
  });

  test('takes the device from its users at the second signal', async () => {
    const { server, path } = await startServer('add', 'null', '--size', '1MiB');
    const said = heard(server);
    const file = await open(path, 'r');
    send(server, 'SIGTERM');
    await vi.waitFor(() => expect(said()).toContain('in use'), inTime);
    send(server, 'SIGTERM');
    await vi.waitFor(() => expect(existsSync('/sys/block/ublkb0')).toBe(false), inTime);
    await file.close();
    expect((await server).exitCode).toBe(0);
  });

  test('serves a mounted device with recovery on until it is unmounted, then leaves it', async (context) => {
    await need(context, 'QUIESCE');
    const image = sparseImage(64 << 20);
    const { server, path } = await startServer('add', 'file', image, '--recovery', 'reissue');
    const said = heard(server);
    const { folder, file, bytes } = await dirtyMount(path);
    send(server, 'SIGTERM');
    const users = `in use: mounted on ${folder}; it is served until nobody uses it, at most 60 s;`;
    await vi.waitFor(() => expect(said()).toContain(users), inTime);
    writeFileSync(`${file}-2`, bytes, { flush: true });
    expect(await getDeviceInfo(0)).toMatchObject({ state: 'live', serverPid: server.pid });
    await execa('umount', [folder]);
    const { exitCode, stderr } = await server;
    expect(exitCode).toBe(0);
    expect(stderr).toContain('waits for its next server: ublk recover 0');
    expect(await getDeviceInfo(0)).toMatchObject({ state: 'quiesced' });
    expect((await ublk('delete', '0')).exitCode).toBe(0);
    expect((await storedFile(image)).equals(bytes)).toBe(true);
  });

  test.for([
    ['at a second signal', []],
    ['at its limit', ['--stop-after', '2']],
    ['at once at SIGUSR2', []],
  ] as const)(
    'leaves a device with recovery %s, mounted and dirty',
    async ([when, limit], context) => {
      await need(context, 'QUIESCE');
      const image = sparseImage(64 << 20);
      const add = ['add', 'file', image, '--recovery', 'reissue', ...limit];
      const { server, path } = await startServer(...add);
      const said = heard(server);
      const { folder, file, bytes } = await dirtyMount(path);
      const restarts = when.endsWith('SIGUSR2');
      send(server, restarts ? 'SIGUSR2' : 'SIGTERM');
      if (!restarts) await untilSaid(said, 'in use: mounted');
      if (when === 'at a second signal') send(server, 'SIGTERM');
      const { exitCode, stderr } = await server;
      expect(stderr.includes('in use')).toBe(!restarts);
      expect(exitCode).toBe(0);
      expect(stderr).toContain('waits for its next server: ublk recover 0');
      expect(await getDeviceInfo(0)).toMatchObject({ state: 'quiesced' });
      const refused = await ublk('delete', '0', '--json');
      expect(refused.exitCode).toBe(1);
      expect(refused.stderr).toContain(`mounted on ${folder}`);
      const { server: next } = await startServer('recover', '0', 'file', image);
      expect(readFileSync(file).equals(bytes)).toBe(true);
      await execa('umount', [folder]);
      expect((await ublk('stop', '0')).exitCode).toBe(0);
      expect((await next).exitCode).toBe(0);
      expect((await storedFile(image)).equals(bytes)).toBe(true);
    },
  );
});

withUblk('ublk delete', () => {
  afterEach(expectNoDevices);

  test('refuses a mounted device and says where; --force takes it away', async () => {
    const { server, path } = await startServer('add', 'file', sparseImage(64 << 20));
    const { folder } = await dirtyMount(path);
    const refused = await ublk('delete', '0', '--json');
    expect(refused.exitCode).toBe(1);
    const { error } = JSON.parse(refused.stderr) as { error: { code: string; message: string } };
    expect(error.code).toBe('ERR_UBLK_BUSY');
    expect(error.message).toContain(`mounted on ${folder}`);
    expect(await getDeviceInfo(0)).toMatchObject({ state: 'live' });
    const forced = ublk('delete', '0', '--force');
    await vi.waitFor(async () => {
      const { exitCode } = await execa('umount', [folder], { reject: false });
      expect(exitCode).toBe(0);
      expect(await ublk('list')).toMatchObject({ stdout: 'no ublk devices' });
    }, inTime);
    expect((await forced).exitCode).toBe(0);
    await server;
  });

  test('takes several numbers, and all; one that stays keeps no other', async () => {
    const devices = [];
    for (let id = 0; id < 4; id += 1)
      devices.push(await startServer('add', 'null', '--size', '1M'));
    const file = await open('/dev/ublkb1', 'r');
    const some = await ublk('delete', '0', '1', '2');
    expect(some.exitCode).toBe(1);
    expect(some.stdout).toBe('deleted device 0\ndeleted device 2');
    expect(some.stderr).toContain('ublk device 1 is in use');
    await file.close();
    const all = await ublk('delete', '--all');
    expect(all).toMatchObject({ exitCode: 0, stdout: 'deleted device 1\ndeleted device 3' });
    expect(await ublk('delete', '--all')).toMatchObject({ stdout: 'no ublk devices' });
    for (const { server } of devices) await server;
  });
});

withUblk('a server that its starter has left', () => {
  afterEach(expectNoDevices);

  /** Starts the command as a user does, below a shell that does `first`. */
  async function startBelow(first: string, ...args: string[]) {
    const server = execa('sh', ['-c', `${first}; exec "$0" "$@"`, BIN, ...args], {
      reject: false,
    });
    await once(server.stdout, 'data');
    return { server };
  }

  test.each(['HUP', 'INT', 'TERM'])('ignores SIG%s where its starter does', async (name) => {
    const { server } = await startBelow(`trap "" ${name}`, 'add', 'null', '--size', '1MiB');
    send(server, `SIG${name}` as NodeJS.Signals);
    send(server, `SIG${name}` as NodeJS.Signals);
    // Another signal is heard, and is the first one.
    send(server, name === 'HUP' ? 'SIGINT' : 'SIGHUP');
    const { exitCode, stderr } = await server;
    expect(exitCode).toBe(0);
    expect(stderr).toContain('/dev/ublkb0 closed: ');
  });

  test('ignores it in the background too', async () => {
    const start = ['add', 'null', '--size', '1MiB', '--background', '--json'];
    const { stdout } = await execa('nohup', [BIN, ...start], { stdin: 'ignore' });
    const { pid } = JSON.parse(stdout) as { pid: number };
    process.kill(pid, 'SIGHUP');
    process.kill(pid, 'SIGHUP');
    process.kill(pid, 'SIGHUP');
    expect((await ublk('info', '0')).stdout).toContain(`process ${pid}`);
    expect((await ublk('stop', '0')).exitCode).toBe(0);
    await vi.waitFor(() => expect(existsSync(`/proc/${pid}`)).toBe(false), inTime);
  });

  test('serves on when nobody reads its output any more', async () => {
    const server = spawn(BIN, ['add', 'null', '--size', '1MiB']);
    await once(server.stdout, 'data');
    server.stdout.destroy();
    server.stderr.destroy();
    const file = await open('/dev/ublkb0', 'r');
    send(server, 'SIGTERM');
    // Meanwhile the server says of its user what nobody hears.
    await pause(2500);
    expect(await getDeviceInfo(0)).toMatchObject({ state: 'live', serverPid: server.pid });
    await file.close();
    expect(await once(server, 'exit')).toEqual([0, null]);
  });

  test('is ready although nobody reads its first line', async () => {
    const script = '"$0" add null --size 1MiB 2>/dev/null | true';
    const server = execa('sh', ['-c', script, BIN], { reject: false });
    await vi.waitFor(async () => {
      expect(await getDeviceInfo(0)).toMatchObject({ state: 'live' });
    }, inTime);
    await vi.waitFor(async () => expect((await ublk('stop', '0')).exitCode).toBe(0), inTime);
    await server;
  });
});
