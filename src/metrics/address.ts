import { wrong } from '../errors.ts';

/** An address of TCP. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

const LOOPBACK = '127.0.0.1';
const HINT = "write '127.0.0.1:9760', '[::1]:9760' or '9760', which is the same as the first";

/**
 * Parses `PORT`, `HOST:PORT` or `[IPV6]:PORT`. Without a host, the address is that of this machine alone;
 * port 0 is any free port.
 *
 * @param name The option, for the error.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function parseAddress(value: unknown, name: string): Address {
  const pattern = /^(?:(?:\[(?<v6>[\da-f:.]+)\]|(?<host>[\w.-]+)):)?(?<port>\d{1,5})$/i;
  const groups = typeof value === 'string' ? pattern.exec(value)?.groups : undefined;
  const port = Number(groups?.['port'] ?? Number.NaN);
  if (port <= 65_535) return { host: groups?.['v6'] ?? groups?.['host'] ?? LOOPBACK, port };
  const shown = JSON.stringify(value) ?? String(value);
  throw wrong(name, `is ${shown}; it must be an address with a port from 0 to 65535`, HINT);
}
