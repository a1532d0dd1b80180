import { readdirSync, readlinkSync } from 'node:fs';

import { debug } from '../debug.ts';
import type { Device } from '../device.ts';
import { toProcessWarning, toUblkError, UblkError, UblkErrorCode } from '../errors.ts';
import { serverBehind } from '../handler/serve.ts';
import type { NamedOptions } from '../service/config.ts';
import type { Service } from '../service/service.ts';
import { packageVersion } from '../version.ts';
import type { Controlled } from './routes.ts';
import type { HandedDevice, Heard, Message, MessageOf, Wire } from './wire.ts';

/** How long a new server may take to serve a device, or to open its sockets, in milliseconds. */
const PATIENCE_MS = 60_000;

/** The sockets of a service, which the new server opens after the old server has closed them. */
export interface Doors {
  readonly path: string;
  readonly group?: string | undefined;
  close(): Promise<void>;
  reopen(): Promise<void>;
}

/** A device on its way to the new server. */
interface Given extends HandedDevice {
  readonly device: Device;
  readonly options: NamedOptions;
  /** The state of the handler that has left the device. */
  state?: string | undefined;
}

/**
 * Hands all devices of a service over to the process at the other end of the wire, one device after
 * another. After an error, the end of the wire or silence, the service takes all devices back: either all
 * devices change their server, or none.
 */
export async function giveDevices(controlled: Controlled, wire: Wire, doors: Doors): Promise<void> {
  const { service } = controlled;
  try {
    wire.send(hello(controlled, doors));
    const ready = await wire.next();
    // The new server has ended, or only looked.
    if (ready.message !== 'ready') return;
    await service.exclusively(async () => {
      const problem = refusal(service, ready);
      if (problem) wire.send({ message: 'refused', error: problem });
      else await give(controlled, wire, doors, ready.pid);
    });
  } catch (thrown) {
    // Whatever a peer sends, the server of the disks goes on.
    wire.send({ message: 'refused', error: toUblkError(thrown) });
  } finally {
    wire.end();
  }
}

function hello({ service, config, handOver }: Controlled, { path, group }: Doors): Message {
  return {
    message: 'hello',
    pid: process.pid,
    version: packageVersion(),
    config,
    devices: devicesOf(service),
    control: { path, group },
    serving: handOver?.serving,
  };
}

function devicesOf(service: Service): HandedDevice[] {
  return [...service.devices].map(([name, device]) => {
    return { name, id: device.id, states: serverBehind(device)?.keepers };
  });
}

/** Why nothing can be handed over. */
function refusal(service: Service, ready: MessageOf<'ready'>): UblkError | undefined {
  if (!Array.isArray(ready.devices)) return unreadable();
  const now = devicesOf(service);
  const isPrepared = ({ name, id }: HandedDevice): boolean =>
    ready.devices.some((one) => one?.name === name && one.id === id);
  if (!service.ready || now.length !== ready.devices.length || !now.every(isPrepared)) {
    const message = 'the devices of the service have changed since the hand-over began';
    return new UblkError(UblkErrorCode.Busy, message, { hint: 'try again' });
  }
  return undefined;
}

function unreadable(): UblkError {
  const message = 'the new server has named no devices';
  return new UblkError(UblkErrorCode.InvalidArgument, message, { hint: 'use ublk upgrade' });
}

async function give(
  { service, handOver }: Controlled,
  wire: Wire,
  doors: Doors,
  pid: number,
): Promise<void> {
  const given: Given[] = [];
  let isClosed = false;
  /** Whether the new server has everything; otherwise the new server has left the devices, or has died. */
  const giveAll = async (): Promise<boolean> => {
    for (const [name, { device, options }] of service.entries) {
      const one: Given = { name, id: device.id, device, options };
      given.push(one);
      one.state = await leave(device);
      wire.send({ message: 'yours', name, state: one.state });
      if (!(await hears(wire, 'alive'))) return false;
    }
    isClosed = true;
    await Promise.all([doors.close(), handOver?.close()]);
    wire.send({ message: 'bye' });
    return await hears(wire, 'done');
  };
  service.handingOver = true;
  try {
    if (await giveAll()) {
      service.handedTo(pid);
      handOver?.done(pid);
      return;
    }
  } catch (error) {
    await callBack(wire, pid, given, toUblkError(error));
  } finally {
    service.handingOver = false;
  }
  // A service that ends leaves its devices to the next server.
  const back = handOver?.ending.aborted ? [] : given;
  const lost = (await Promise.all(back.map((one) => takeBack(service, one)))).flat();
  if (isClosed) await Promise.all([doors.reopen(), handOver?.reopen()]).catch(warn);
  wire.send({ message: 'kept', lost });
}

/** Leaves a device to its next server; resolves to the state of the device's handler, if it keeps state. */
async function leave(device: Device): Promise<string | undefined> {
  const server = serverBehind(device);
  const state = server?.suspendAtEnd();
  try {
    await device.quiesce();
  } catch (error) {
    server?.keepOn();
    throw error;
  }
  return await state;
}

/** @throws {Silence} Where the new server stands still. */
async function hears(wire: Wire, expected: 'alive' | 'done'): Promise<boolean> {
  const said = await wire.next(PATIENCE_MS);
  if (said.message === 'silence') throw new Silence();
  return said.message === expected;
}

class Silence extends UblkError {
  constructor() {
    const message = `the new server has not answered for ${PATIENCE_MS / 1000} s`;
    super(UblkErrorCode.Timeout, message);
  }
}

/** Makes the new server leave the devices; a process that stands still would keep the devices. */
async function callBack(
  wire: Wire,
  pid: number,
  given: readonly Given[],
  error: UblkError,
): Promise<void> {
  const last = given.at(-1)?.name;
  const text = `device '${last}' cannot be handed over: ${error.message}`;
  const { code, hint } = error;
  wire.send({ message: 'refused', error: new UblkError(code, text, { hint }) });
  if (error instanceof Silence) return endHolder(pid, given);
  for (let said: Heard['message'] = 'alive'; said !== 'failed' && said !== 'end';) {
    said = (await wire.next(PATIENCE_MS)).message;
    if (said === 'silence') return endHolder(pid, given);
  }
}

/** Serves a device again; an error is reported to both sides. */
async function takeBack(
  service: Service,
  { name, id, device, options, state }: Given,
): Promise<(HandedDevice & { readonly error: UblkError })[]> {
  const recover = async (): Promise<(HandedDevice & { readonly error: UblkError })[]> => {
    try {
      await service.adopt(id, options, { state });
      return [];
    } catch (thrown) {
      const error = toUblkError(thrown);
      warn(error);
      return [{ name, id, error }];
    }
  };
  if (service.devices.get(name) !== device) return await recover();
  // The old server has not left, but may do so when the last request has ended.
  void device.closed.then(
    (reason) => (reason === 'quiesced' ? service.exclusively(recover) : []),
    () => {},
  );
  return [];
}

function warn(error: unknown): void {
  process.emitWarning(toProcessWarning(toUblkError(error)));
}

/** Kills the new server, if the process has a device of the hand-over open: only a server has. */
function endHolder(pid: number, devices: readonly HandedDevice[]): void {
  try {
    const nodes = new Set(devices.map(({ id }) => `/dev/ublkc${id}`));
    const isHolder = readdirSync(`/proc/${pid}/fd`).some((fd) =>
      nodes.has(readlinkSync(`/proc/${pid}/fd/${fd}`)),
    );
    if (isHolder) process.kill(pid, 'SIGKILL');
  } catch (error) {
    debug('process %d cannot be ended: %O', pid, error);
  }
}
