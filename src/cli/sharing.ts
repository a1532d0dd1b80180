import { once } from 'node:events';
import { mkdir, readlink, realpath, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { basename, dirname, join, resolve } from 'node:path';

import type { Device } from '../device.ts';
import { invalid, UblkError, unwrap, type Failure, type Outcome } from '../errors.ts';
import type { SharedMemory } from '../memory.ts';

/** The requests of `ublk share` and `ublk unshare` to a device's server. */
export type Wish = { share: string; readOnly: boolean } | { unshare: number };

const socketOf = (id: number, folder: string): string => `${folder}/ublkb${id}.sock`;
const FOLDER = '/run/ublk';
/** The time limit for a client's message, in milliseconds. */
const PATIENCE_MS = 10_000;
/** The longest message, in characters: a path in JSON. */
const LONGEST = 16_384;

/**
 * Listens for requests about a device's shared memory until disposed of, on a socket that only this
 * user can reach. Does nothing for a device without shared memory.
 */
export async function hearWishes(
  device: Device,
  folder: string = FOLDER,
): Promise<AsyncDisposable> {
  if (!device.buffers.shared) return { [Symbol.asyncDispose]: async () => {} };
  const path = socketOf(device.id, folder);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  // This process serves the id, so an existing socket belongs to a dead server.
  await rm(path, { force: true });
  const memories = new Map<number, SharedMemory>();
  const clients = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    clients.add(socket);
    socket.once('close', () => clients.delete(socket));
    // A client may disconnect before the answer.
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
  // The kernel may take any time to register the memory.
  socket.setTimeout(0);
  const outcome = await grant(wish, device, memories).then(
    (value) => ({ value }),
    (error: unknown) => ({ failure: failureOf(error) }),
  );
  socket.end(JSON.stringify(outcome));
}

/** The whole message; unlike an async iteration, this function leaves the other direction open. */
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

/** Whether a path differs between processes: /proc/self, /dev/stdin, a relative path. */
async function isOurs(path: string): Promise<boolean> {
  return path !== (await meaning(path));
}

/** The path of the same file for every process. */
async function meaning(path: string): Promise<string> {
  const whole = resolve(path);
  // The last name stays: the file of /proc/PID/fd/N may have no path.
  const folder = await realpath(dirname(whole)).catch(() => dirname(whole));
  const target = await readlink(whole).catch(() => '');
  const isOfProcess = target.startsWith('/proc/self/') || target.startsWith('/proc/thread-self/');
  return isOfProcess ? meaning(target) : join(folder, basename(whole));
}

/**
 * Sends a request to the server of device `id`.
 *
 * @throws {UblkError} The server's error; `ERR_UBLK_INVALID_ARGUMENT` when no server listens.
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
