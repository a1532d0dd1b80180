import { once } from 'node:events';
import { mkdir, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';

import type { Device } from '../device.ts';
import { invalid, UblkError, unwrap, type Failure, type Outcome } from '../errors.ts';
import type { SharedMemory } from '../memory.ts';

/** What `ublk share` and `ublk unshare` ask of the process that serves a device. */
export type Wish = { share: string; readOnly: boolean } | { unshare: number };

const socketOf = (id: number, folder: string): string => `${folder}/ublkb${id}.sock`;
const FOLDER = '/run/ublk';

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
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    void respond(socket, device, memories).catch(() => socket.destroy());
  });
  server.listen(path);
  await once(server, 'listening');
  return {
    [Symbol.asyncDispose]: async () => {
      server.close();
      await rm(path, { force: true });
    },
  };
}

async function respond(
  socket: Socket,
  device: Device,
  memories: Map<number, SharedMemory>,
): Promise<void> {
  const wish = JSON.parse(await received(socket)) as Wish;
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
    socket.on('data', (chunk: string) => (text += chunk));
    socket.once('end', () => resolve(text));
    socket.once('error', reject);
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
  socket.end(JSON.stringify(wish));
  return unwrap(JSON.parse(await received(socket)) as Outcome<number>);
}
