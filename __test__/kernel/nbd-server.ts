import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { execa } from 'execa';
import { onTestFinished, vi, type TestContext } from 'vitest';

import type { Device } from '../../src/index.ts';
import { newProgram } from '../nbd-tools.ts';
import { servesOn } from '../progress.ts';
import { temporaryFolder } from './image.ts';
import { pause } from './load.ts';

/** A real server of NBD, which is killed at the end of the test. */
export interface NbdServer {
  readonly uri: string;
  /** Kills the server, without a chance to say goodbye. */
  kill(): Promise<void>;
  /** Lets the server stand still, with all its connections, until {@link go}. */
  halt(): void;
  /** Lets the server go on. */
  go(): void;
  /** Starts the server again, on the same data. */
  start(): Promise<void>;
  /** What the server has written on stderr since the last start. */
  log(): string;
}

const PROGRAMS = { nbdkit: 'nbdkit', qemu: 'qemu-nbd' } as const;

/** Skips the test, with the reason, where a program is missing. */
export function needServer(context: TestContext, kind: keyof typeof PROGRAMS): void {
  const program = PROGRAMS[kind];
  const folders = (process.env.PATH ?? '').split(':');
  if (folders.some((folder) => existsSync(join(folder, program)))) return;
  context.skip(`there is no ${program} here: apt-get install nbdkit qemu-utils`);
}

/** Starts nbdkit with these words: filters, a plugin, and what the plugin needs. */
export async function nbdkit(...words: readonly string[]): Promise<NbdServer> {
  return await serve((socket) => ['nbdkit', '-f', '-U', socket, ...words], '');
}

/** Starts qemu-nbd on an image in raw format. */
export async function qemuNbd(image: string, ...words: readonly string[]): Promise<NbdServer> {
  const options = ['-t', '-f', 'raw', '-x', 'disk', '--discard=unmap', '--shared=4', ...words];
  return await serve((socket) => ['qemu-nbd', '-k', socket, ...options, image], 'disk');
}

/**
 * Starts a qemu-nbd that has extended headers on an image in raw format, and notes each request. Skips the test
 * where there is none.
 */
export async function newQemuNbd(
  context: TestContext,
  image: string,
  ...words: readonly string[]
): Promise<NbdServer> {
  const program = newProgram(context, 'qemu-nbd');
  const options = ['-t', '-f', 'raw', '-x', 'disk', '--discard=unmap', '--shared=4', ...words];
  const trace = ['--trace', 'nbd_receive_request', '--trace', '*payload_compliance'];
  return await serve((socket) => [program, '-k', socket, ...trace, ...options, image], 'disk');
}

/** Starts nbdkit at a TCP port with the server's certificates in the folder; clients need a certificate. */
export async function nbdkitWithTls(
  folder: string,
  ...words: readonly string[]
): Promise<NbdServer> {
  const tls = ['--tls=require', `--tls-certificates=${folder}`, '--tls-verify-peer'];
  return await atPort('nbds', [...tls, ...words]);
}

/** Starts `tickets.py`, which sends tickets of TLS between the parts of replies, with the certificates in the folder. */
export async function ticketServer(folder: string): Promise<NbdServer> {
  const port = String((nextPort += 1));
  const file = join(temporaryFolder(), 'listens');
  const script = join(import.meta.dirname, 'tickets.py');
  const command = ['/usr/bin/python3', script, folder, port, file];
  return await start(command, file, `nbds://127.0.0.1:${port}/`);
}

/** Starts nbdkit at a TCP port, without TLS. */
export async function nbdkitAtPort(...words: readonly string[]): Promise<NbdServer> {
  return await atPort('nbd', words);
}

/** Kills the server of a device under load, starts the server again, and waits until the device serves on. */
export async function diesAndReturns(server: NbdServer, device: Device): Promise<void> {
  await servesOn(device);
  await server.kill();
  // The load meets a server that is not there.
  await pause(200);
  await server.start();
  await servesOn(device);
}

async function atPort(scheme: string, words: readonly string[]): Promise<NbdServer> {
  const port = String((nextPort += 1));
  // nbdkit makes the file once it listens.
  const pidFile = join(temporaryFolder(), 'pid');
  const command = ['nbdkit', '-f', '-p', port, '-P', pidFile, ...words];
  return await start(command, pidFile, `${scheme}://127.0.0.1:${port}/`);
}

let nextPort = 10_900;

async function serve(
  command: (socket: string) => readonly string[],
  name: string,
): Promise<NbdServer> {
  const socket = join(temporaryFolder(), 'nbd.sock');
  return await start(command(socket), socket, `nbd+unix:///${name}?socket=${socket}`);
}

/** Starts a server that makes the file once it listens. */
async function start(
  [program = '', ...words]: readonly string[],
  file: string,
  uri: string,
): Promise<NbdServer> {
  let server: ReturnType<typeof run> | undefined;
  const run = () => execa(program, words, { reject: false, stdin: 'ignore' });
  let heard = '';
  const begin = async (): Promise<void> => {
    // qemu-nbd removes a socket that is left; nbdkit refuses.
    await execa('rm', ['-f', file]);
    const started = run();
    server = started;
    heard = '';
    started.stderr.on('data', (text: unknown) => (heard += String(text)));
    await vi.waitFor(
      () => {
        if (existsSync(file)) return;
        throw new Error(`${program} does not listen: ${String(started.exitCode)}`);
      },
      { timeout: 60_000, interval: 20 },
    );
  };
  const kill = async (): Promise<void> => {
    server?.kill('SIGKILL');
    await server;
  };
  const halt = (): void => void server?.kill('SIGSTOP');
  const go = (): void => void server?.kill('SIGCONT');
  onTestFinished(kill);
  await begin();
  return { uri, kill, halt, go, start: begin, log: () => heard };
}
