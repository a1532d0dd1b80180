import type { ServerResponse } from 'node:http';

import type { Device } from '../device.ts';
import type { UblkError } from '../errors.ts';
import type { ServiceResult } from '../service/service.ts';
import type { Stall } from '../service/stalls.ts';
import type { Stalled } from '../watchdog.ts';
import type { ServiceEvent } from './protocol.ts';
import { serviceInfo, type Controlled } from './routes.ts';

/** How many bytes of events may wait for a reader, before the stream of a slow reader is cut. */
const WAITING = 1 << 20;

type Untimed = ServiceEvent extends infer One
  ? One extends { readonly time: string }
    ? Omit<One, 'time'>
    : never
  : never;

/**
 * Writes the events of a service to a response from now on, one line of JSON each. The stream ends with
 * the service, or with its reader.
 */
export function streamEvents(controlled: Controlled, response: ServerResponse): void {
  const { service } = controlled;
  response.writeHead(200, { 'content-type': 'application/x-ndjson' });
  const send = (event: Untimed): void => {
    response.write(`${JSON.stringify({ time: new Date().toISOString(), ...event })}\n`);
    // Whoever stops reading must not fill the memory of a server of disks.
    if (response.writableLength > WAITING) response.destroy();
  };
  const serve = (name: string, { id, path }: Device): void =>
    send({ event: 'serve', name, id, path });
  const end = (name: string, { id, path }: Device, error?: UblkError): void =>
    send({ event: 'end', name, id, path, ...(error && { error }) });
  const warning = (name: string, { id, path }: Device, warned: UblkError): void =>
    send({ event: 'warning', name, id, path, warning: warned });
  const stall = (name: string, { id, path }: Device, found: Stall): void =>
    send({ event: 'stall', name, id, path, ...found });
  const stalled = (name: string, { id, path }: Device, found: Stalled): void =>
    send({ event: 'stalled', name, id, path, stalled: found });
  const resume = (name: string, { id, path }: Device): void =>
    send({ event: 'resume', name, id, path });
  const reload = (results: readonly ServiceResult[]): void => send({ event: 'reload', results });
  service.on('serve', serve).on('end', end).on('warning', warning);
  service.on('stalled', stalled).on('stall', stall).on('resume', resume).on('reload', reload);
  response.once('close', () => {
    service.off('serve', serve).off('end', end).off('warning', warning);
    service.off('stalled', stalled).off('stall', stall).off('resume', resume).off('reload', reload);
  });
  send({ event: 'hello', service: serviceInfo(controlled) });
}
