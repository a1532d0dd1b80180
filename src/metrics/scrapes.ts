import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

import { messageOf, UblkError, UblkErrorCode } from '../errors.ts';
import { closeServer } from '../http.ts';
import { parseAddress, type Address } from './address.ts';
import { CONTENT_TYPE } from './text.ts';

/** A server of HTTP for the scrapes of Prometheus. */
export interface ScrapeServer extends AsyncDisposable {
  /** For example `http://127.0.0.1:9760/metrics`. */
  readonly url: string;
}

/** The most connections at a time; the server cuts others. */
const MOST_CONNECTIONS = 64;
const PATH = '/metrics';

/**
 * Answers scrapes at an address until disposed of. Scrapes at the same time share one text.
 *
 * @param address As {@link parseAddress} takes addresses.
 * @param name The option with the address, for errors.
 * @param text Collects the metrics for a scrape. An error of this package becomes the answer 503.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`, `ERR_UBLK_BUSY` for an address in use,
 * `ERR_UBLK_PERMISSION`.
 */
export async function serveScrapes(
  address: string,
  name: string,
  text: () => string | Promise<string>,
): Promise<ScrapeServer> {
  const parsed = parseAddress(address, name);
  let running: Promise<string> | undefined;
  const scrape = (): Promise<string> => {
    running ??= (async () => await text())().finally(() => (running = undefined));
    return running;
  };
  const server = createServer(({ method, url = '' }, response) => {
    response.on('error', () => {});
    void respond(response, method, url.split('?', 1)[0], scrape);
  });
  server.maxConnections = MOST_CONNECTIONS;
  await bind(server, parsed, address, name);
  return {
    url: urlOf(server.address() as AddressInfo),
    [Symbol.asyncDispose]: () => closeServer(server),
  };
}

async function respond(
  response: ServerResponse,
  method: string | undefined,
  path: string | undefined,
  scrape: () => Promise<string>,
): Promise<void> {
  if (path !== PATH) return send(response, 404, `the metrics are at ${PATH}\n`);
  if (method !== 'GET' && method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD');
    return send(response, 405, 'use GET\n');
  }
  try {
    send(response, 200, await scrape(), CONTENT_TYPE);
  } catch (error) {
    const hint = UblkError.is(error) && error.hint !== undefined ? `hint: ${error.hint}\n` : '';
    send(response, 503, `error: ${messageOf(error)}\n${hint}`);
  }
}

function send(
  response: ServerResponse,
  status: number,
  text: string,
  type = 'text/plain; charset=utf-8',
): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(text) });
  response.end(text);
}

async function bind(server: Server, to: Address, address: string, name: string): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(to.port, to.host, () => {
        server.off('error', reject);
        resolve();
      });
    });
  } catch (cause) {
    throw refused(address, name, cause);
  }
}

function refused(address: string, name: string, cause: unknown): UblkError {
  const { code } = Object(cause) as NodeJS.ErrnoException;
  const message = `cannot listen at ${address} for scrapes: ${messageOf(cause)}`;
  const as = (known: UblkErrorCode, hint: string): UblkError =>
    new UblkError(known, message, { hint, key: name, cause });
  if (code === 'EADDRINUSE') {
    return as(UblkErrorCode.Busy, 'stop the other server, or take another port');
  }
  if (code === 'EACCES') return as(UblkErrorCode.Permission, 'take a port above 1023');
  return as(UblkErrorCode.InvalidArgument, "take an address of this machine, such as '127.0.0.1'");
}

function urlOf({ address, family, port }: AddressInfo): string {
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}${PATH}`;
}
