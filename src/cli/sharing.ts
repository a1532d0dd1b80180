import { once } from 'node:events';
import { mkdir, readlink, realpath, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { basename, dirname, join, resolve } from 'node:path';

import type { Device } from '../device.ts';
import { invalid, UblkError, unwrap, type Failure, type Outcome } from '../errors.ts';
import type { SharedMemory } from '../memory.ts';

/** What `ublk share` and `ublk unshare` ask of the process that serves a device. */
export type Wish = { share: string; readOnly: boolean } | { unshare: number };

const socketOf = (id: number, folder: string): string => `${folder}/ublkb${id}.sock`;
const FOLDER = '/run/ublk';
/** How long a client may take to say what it wishes, in milliseconds. */
const PATIENCE_MS = 10_000;
/** The longest wish, in characters: a path and what is around it. */
const LONGEST = 16_384;

/**
 * Hears wishes about a device's shared memory until it is disposed of, on a socket that only this
 * user can reach. Does nothing for a device that shares none.
 */
export async function hearWishes(
  device: Device,
  folder: string = FOLDER,
): Promise<AsyncDisposable> {
  if (!device.buffers.shared) return { [Symbol.asyncDispose]: async () => {} };
  const path = socketOf(device.id, folder);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  // The id is ours, so what is there is from a server that died.
  await rm(path, { force: true });
  const memories = new Map<number, SharedMemory>();
  const clients = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    clients.add(socket);
    socket.once('close', () => clients.delete(socket));
    // A client that goes away before it has its answer.
    socket.on('error', () => {});
    void respond(socket, device, memories).catch(() => socket.destroy());
  });
  server.listen(path);
  await once(server, 'listening');
  return {
    [Symbol.asyncDispose]: async () => {
      server.close();
      for (const client of clients) client.destroy();
      await rm(path, { force: true });
    },
  };
}

async function respond(
  socket: Socket,
  device: Device,
  memories: Map<number, SharedMemory>,
): Promise<void> {
  socket.setTimeout(PATIENCE_MS, () => socket.destroy(new Error('the client says nothing')));
  const wish = JSON.parse(await received(socket)) as Wish;
  // How long the kernel takes to share is the kernel's affair.
  socket.setTimeout(0);
  const outcome = await grant(wish, device, memories).then(
    (value) => ({ value }),
    (error: unknown) => ({ failure: failureOf(error) }),
  );
  socket.end(JSON.stringify(outcome));
}

/** All that comes; unlike an async iteration, this leaves the other direction open. */
function received(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      text += chunk;
      if (text.length > LONGEST) socket.destroy(new Error('the other side says too much'));
    });
    socket.once('end', () => resolve(text));
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('the other side has gone')));
  });
}

function failureOf(error: unknown): Failure {
  const { code, hint } = UblkError.is(error) ? error : invalid('');
  const message = error instanceof Error ? error.message : String(error);
  return { code, message, ...(hint !== undefined && { hint }) };
}

async function grant(
  wish: Wish,
  device: Device,
  memories: Map<number, SharedMemory>,
): Promise<number> {
  if ('share' in wish) {
    if (await isOurs(wish.share)) {
      throw invalid(`${wish.share} is another file here than where ublk share runs`);
    }
    const memory = await device.share(wish.share, { readOnly: wish.readOnly });
    memories.set(memory.index, memory);
    return memory.index;
  }
  const memory = memories.get(wish.unshare);
  if (!memory) throw invalid(`ublk share has shared no memory ${wish.unshare}`);
  await memory.close();
  memories.delete(wish.unshare);
  return wish.unshare;
}

/** Whether a path means something else in each process: /proc/self, /dev/stdin, one that is relative. */
async function isOurs(path: string): Promise<boolean> {
  return path !== (await meaning(path));
}

/** A path that means in every process what `path` means in this one. */
async function meaning(path: string): Promise<string> {
  const whole = resolve(path);
  // The last name stays: behind /proc/PID/fd/N there need not be a path.
  const folder = await realpath(dirname(whole)).catch(() => dirname(whole));
  const target = await readlink(whole).catch(() => '');
  const isOfProcess = target.startsWith('/proc/self/') || target.startsWith('/proc/thread-self/');
  return isOfProcess ? meaning(target) : join(folder, basename(whole));
}

/**
 * Asks the process that serves device `id`.
 *
 * @throws {UblkError} what it answers; `ERR_UBLK_INVALID_ARGUMENT` when nobody listens.
 */
export async function wishFor(id: number, wish: Wish, folder: string = FOLDER): Promise<number> {
  const socket = connect({ path: socketOf(id, folder), allowHalfOpen: true });
  try {
    await once(socket, 'connect');
  } catch (cause) {
    throw invalid(
      `no server of device ${id} takes memory: ${(cause as Error).message}`,
      'serve it with: ublk add … --buffers shared',
    );
  }
  const sent = 'share' in wish ? { ...wish, share: await meaning(wish.share) } : wish;
  socket.end(JSON.stringify(sent));
  return unwrap(JSON.parse(await received(socket)) as Outcome<number>);
}
