import { isAbsolute } from 'node:path';

import { checkBoolean, checkKeys } from '../check.ts';
import type { Device } from '../device.ts';
import { stopDevice } from '../devices.ts';
import { invalid, UblkError, UblkErrorCode } from '../errors.ts';
import type { DeviceFlattenOptions } from '../merges.ts';
import type { OverlayMerged } from '../overlay-merges.ts';
import type { OverlayProgress } from '../overlay-task.ts';
import type { OverlaySnapshot } from '../overlays.ts';
import type { ServiceStep } from '../service/plan.ts';
import type { Service, ServiceResult } from '../service/service.ts';
import { parseSize, type Size } from '../size.ts';
import type { ThrottleOptions } from '../throttle.ts';
import { packageVersion } from '../version.ts';
import type { ServedDevice, ServiceInfo } from './protocol.ts';

/** What a service can do for its clients. */
export interface Controlled {
  readonly service: Service;
  readonly since: string;
  readonly config?: string | undefined;
  /** Reads the configuration again; absent for a service that cannot. */
  readonly reload?: (() => Promise<readonly ServiceResult[]>) | undefined;
  /** The steps that `reload` would take. */
  readonly plan?: (() => Promise<readonly ServiceStep[]>) | undefined;
  /** What a hand-over needs of the program of the service. */
  readonly handOver?: HandOverSides | undefined;
}

/** What a hand-over needs of the program of a service, beside the devices and the control socket. */
export interface HandOverSides {
  /** Plain data for the new server. */
  readonly serving: object;
  /** Aborts when the service begins to end: devices that wait for a server are left so. */
  readonly ending: AbortSignal;
  /** Closes the program's other sockets, before the new server opens the same. */
  close(): Promise<void>;
  /** The hand-over has failed: opens the sockets again. */
  reopen(): Promise<void>;
  /** The process `pid` has all devices. */
  done(pid: number): void;
}

/** Who waits for an answer. */
export interface Asker {
  /** Aborts when the client goes away before the answer. */
  readonly gone: AbortSignal;
  /** Sends the progress of a long action before the answer. */
  readonly onProgress: (progress: OverlayProgress) => void;
}

type Action = (controlled: Controlled, name: string, body: unknown, asker: Asker) => unknown;

const ROUTES: readonly (readonly [method: string, path: RegExp, action: Action])[] = [
  ['GET', /^\/v1\/service$/, (controlled) => serviceInfo(controlled)],
  ['GET', /^\/v1\/devices$/, ({ service }) => [...service.devices].map(describe)],
  ['GET', /^\/v1\/devices\/([^/]+)$/, (it, name) => describe([name, find(it, name)])],
  ['POST', /^\/v1\/devices\/([^/]+)\/stop$/, stop],
  ['POST', /^\/v1\/devices\/([^/]+)\/resize$/, resize],
  ['POST', /^\/v1\/devices\/([^/]+)\/throttle$/, throttle],
  ['POST', /^\/v1\/devices\/([^/]+)\/quiesce$/, quiesce],
  ['POST', /^\/v1\/devices\/([^/]+)\/snapshot$/, snapshot],
  ['POST', /^\/v1\/devices\/([^/]+)\/flatten$/, flatten],
  ['POST', /^\/v1\/reload$/, reload],
];

/**
 * The answer to a request.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for a path or a method that is none, and what the
 * action throws.
 */
export async function answer(
  controlled: Controlled,
  method: string,
  path: string,
  body: unknown,
  asker: Asker,
): Promise<unknown> {
  const known = ROUTES.filter(([, pattern]) => pattern.test(path));
  const found = known.find(([name]) => name === method);
  if (found === undefined) {
    const hint = known.map(([name]) => `use ${name}`).join() || 'docs/guides/service.md lists them';
    throw invalid(`the service has no ${method} ${path}`, hint);
  }
  const [, name = ''] = found[1].exec(path) ?? [];
  return await found[2](controlled, decode(name), body, asker);
}

function decode(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    throw invalid(`'${name}' is no name`, 'encode the name as in a URL');
  }
}

/** A service in numbers and names. */
export function serviceInfo({ service, since, config }: Controlled): ServiceInfo {
  return {
    pid: process.pid,
    version: packageVersion(),
    since,
    ready: service.ready,
    config,
    devices: [...service.devices.keys()],
    results: service.results,
  };
}

function describe([name, device]: readonly [string, Device]): ServedDevice {
  const { queues: _each, ...stats } = device.stats();
  return { name, ...device.toJSON(), ...stats };
}

function find({ service }: Controlled, name: string): Device {
  const device = service.devices.get(name);
  if (device !== undefined) return device;
  const names = [...service.devices.keys()].join(', ');
  const hint = names === '' ? 'the service has no device now' : `the service has ${names}`;
  throw new UblkError(UblkErrorCode.NoDevice, `the service has no device '${name}'`, { hint });
}

async function stop(controlled: Controlled, name: string, body: unknown): Promise<object> {
  const { force = false } = checked(body, ['force']);
  const device = find(controlled, name);
  const check = await stopDevice(device.id, { force: checkBoolean(force, 'force') });
  // The device leaves the service before the answer.
  await device.closed.catch(() => {});
  return { id: device.id, checked: check };
}

async function resize(controlled: Controlled, name: string, body: unknown): Promise<ServedDevice> {
  const { size } = checked(body, ['size']);
  const device = find(controlled, name);
  await device.resize(parseSize(size as Size, 'size'));
  return describe([name, device]);
}

function throttle(controlled: Controlled, name: string, body: unknown): object {
  const device = find(controlled, name);
  device.throttle(body as ThrottleOptions);
  return { id: device.id };
}

async function quiesce(controlled: Controlled, name: string, body: unknown): Promise<object> {
  checked(body, []);
  const device = find(controlled, name);
  await device.quiesce();
  return { id: device.id };
}

async function snapshot(
  controlled: Controlled,
  name: string,
  body: unknown,
): Promise<OverlaySnapshot> {
  const { children = [], path } = checked(body, ['children', 'path']);
  if (!Array.isArray(children)) throw invalid('children must be an array of paths');
  // A relative path would count from the folder of the service.
  for (const file of path === undefined ? children : [...children, path]) checkIsAbsolute(file);
  const options = { path: path as string | undefined };
  const device = find(controlled, name);
  if (children.length === 0) return await device.snapshot(options);
  return await device.fork(children as string[], options);
}

async function flatten(
  controlled: Controlled,
  name: string,
  body: unknown,
  { gone, onProgress }: Asker,
): Promise<OverlayMerged> {
  const { progress = false, ...rest } = checked(body, ['prune', 'bytesPerSecond', 'progress']);
  const shown = checkBoolean(progress, 'progress') && { onProgress };
  const options: DeviceFlattenOptions = { ...rest, signal: gone, ...shown };
  return await find(controlled, name).flatten(options);
}

function checkIsAbsolute(file: unknown): void {
  if (typeof file === 'string' && isAbsolute(file)) return;
  throw invalid(`the path ${JSON.stringify(file)} is not absolute`);
}

async function reload({ reload, plan }: Controlled, _name: string, body: unknown): Promise<object> {
  const { dryRun = false } = checked(body, ['dryRun']);
  const action = checkBoolean(dryRun, 'dryRun') ? plan : reload;
  if (action !== undefined) return await action();
  const hint = 'give openControl() the option reload';
  throw new UblkError(UblkErrorCode.Unsupported, 'this service cannot reload', { hint });
}

function checked(body: unknown, keys: readonly string[]): Record<string, unknown> {
  checkKeys(body, "the request's body", keys);
  return body as Record<string, unknown>;
}
