import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';

import { checkAbsolutePath } from '../check.ts';
import { invalid, messageOf, toUblkError, UblkErrorCode } from '../errors.ts';
import { closeServer } from '../http.ts';
import type { OverlayProgress } from '../overlay-task.ts';
import { streamEvents } from './events.ts';
import { giveDevices, type Doors } from './give.ts';
import type { ControlOptions, ControlSocket } from './open.ts';
import { defaultSocket } from './protocol.ts';
import { answer, type Controlled } from './routes.ts';
import { groupId, listenAt } from './socket.ts';
import { HAND_OVER, HAND_OVER_PATH, Wire } from './wire.ts';

/** Opens the control socket of a service: {@link openControl} with any reload. */
export async function listen(
  controlled: Controlled,
  { path = defaultSocket(), group }: Pick<ControlOptions, 'path' | 'group'>,
): Promise<ControlSocket> {
  checkAbsolutePath(path, 'path');
  const gid = group === undefined ? undefined : await groupId(group);
  const streams = new Set<ServerResponse>();
  /** The connections of hand-overs, which servers of HTTP do not end. */
  const wires = new Set<Duplex>();
  const open = async (): Promise<Server> => {
    const server = createServer((request, response) => {
      void handle(controlled, streams, request, response);
    });
    server.on('upgrade', (request, socket: Duplex, head: Buffer) => {
      if (!beginsHandOver(request, socket)) return;
      wires.add(socket);
      socket.once('close', () => void wires.delete(socket));
      void giveDevices(controlled, new Wire(socket, head), doors);
    });
    await listenAt(server, path, gid);
    return server.unref();
  };
  let server = await open();
  const doors: Doors = {
    path,
    group,
    close: async () => {
      for (const stream of streams) stream.end();
      // The connection of the hand-over is one of the server's, and stays.
      server.close();
      server.closeIdleConnections();
    },
    reopen: async () => void (server = await open()),
  };
  const close = async (): Promise<void> => {
    for (const stream of streams) stream.end();
    for (const wire of wires) wire.destroy();
    await closeServer(server);
  };
  return { path, close, [Symbol.asyncDispose]: close };
}

/** Accepts a hand-over, and refuses anything else that would leave HTTP. */
function beginsHandOver({ method, url, headers }: IncomingMessage, socket: Duplex): boolean {
  socket.on('error', () => {});
  if (method !== 'GET' || url !== HAND_OVER_PATH || headers.upgrade !== HAND_OVER) {
    const hint = `this version of ublk speaks ${HAND_OVER}: start the service again instead`;
    const body = JSON.stringify({ error: invalid('the service knows no such protocol', hint) });
    const lines = ['HTTP/1.1 400 Bad Request', `Content-Length: ${Buffer.byteLength(body)}`];
    socket.end([...lines, 'Connection: close', '', body].join('\r\n'));
    return false;
  }
  const lines = [
    'HTTP/1.1 101 Switching Protocols',
    'Connection: Upgrade',
    `Upgrade: ${HAND_OVER}`,
  ];
  socket.write([...lines, '', ''].join('\r\n'));
  return true;
}

async function handle(
  controlled: Controlled,
  streams: Set<ServerResponse>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  // A client that goes away needs no answer.
  request.on('error', () => {});
  response.on('error', () => {});
  const { method = '', url = '' } = request;
  try {
    if (method === 'GET' && url === '/v1/events') {
      streams.add(response);
      response.once('close', () => void streams.delete(response));
      streamEvents(controlled, response);
      return;
    }
    const body = await readBody(request);
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    const onProgress = (progress: OverlayProgress) => sendProgress(response, progress);
    const asker = { gone: gone.signal, onProgress };
    send(response, 200, await answer(controlled, method, url, body, asker));
  } catch (thrown) {
    const error = toUblkError(thrown);
    send(response, STATUSES[error.code] ?? 500, { error });
  }
}

/** The statuses of HTTP, for clients that look at nothing else. */
const STATUSES: Partial<Record<UblkErrorCode, number>> = {
  [UblkErrorCode.InvalidArgument]: 400,
  [UblkErrorCode.NoDevice]: 404,
  [UblkErrorCode.Busy]: 409,
  [UblkErrorCode.Unsupported]: 501,
};

/** Sends the answer: the last line of JSON where there was progress, and the only one otherwise. */
function send(response: ServerResponse, status: number, value: unknown): void {
  if (!response.headersSent) response.writeHead(status, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify(value)}\n`);
}

/** Sends a line before the answer, unless the client is slow to read. */
function sendProgress(response: ServerResponse, progress: OverlayProgress): void {
  if (response.writableNeedDrain) return;
  if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/x-ndjson' });
  response.write(`${JSON.stringify({ progress })}\n`);
}

/** The longest body of a request, in bytes. */
const LONGEST_BODY = 1 << 16;

async function readBody(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > LONGEST_BODY) throw invalid('the body is too long', `send ${LONGEST_BODY} bytes`);
    parts.push(part);
  }
  const text = Buffer.concat(parts).toString();
  if (text === '') return {};
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw invalid(
      `the body is no JSON: ${messageOf(error)}`,
      'send one object of JSON, or nothing',
    );
  }
}
