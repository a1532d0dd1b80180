import type { IncomingMessage } from 'node:http';

import { checkAbsolutePath, checkChildren } from '../check.ts';
import { messageOf, toError, UblkError, UblkErrorCode, type Failure } from '../errors.ts';
import type { StopCheck } from '../info.ts';
import type { DeviceFlattenOptions } from '../merges.ts';
import type { OverlayMerged } from '../overlay-merges.ts';
import type { OverlayProgress } from '../overlay-task.ts';
import type { OverlaySnapshot, SnapshotOptions } from '../overlays.ts';
import type { ServiceStep } from '../service/plan.ts';
import type { ServiceResult } from '../service/service.ts';
import { parseSize, type Size } from '../size.ts';
import { toNativeThrottle, type ThrottleOptions } from '../throttle.ts';
import {
  defaultSocket,
  type ServedDevice,
  type ServiceEvent,
  type ServiceInfo,
} from './protocol.ts';

/** Options of each request to a service. */
export interface RequestOptions {
  /** Gives the request up; what the service has begun goes on, but for a merge of layers. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * A service of another process, made by {@link connectService}. Every method throws what the service
 * throws, with code, message and hint; `ERR_UBLK_NO_SERVICE` when the service has ended.
 */
export class ServiceClient {
  /** The control socket. */
  readonly path: string;

  /** @internal */
  constructor(path: string) {
    this.path = path;
  }

  /** The process, the configuration and the last reload of the service. */
  async info(options: RequestOptions = {}): Promise<ServiceInfo> {
    const info = (await this.#ask('GET', '/v1/service', undefined, options)) as ServiceInfo;
    return { ...info, results: info.results.map(revive) };
  }

  /** The devices that the service serves now, with their counters. */
  async devices(options: RequestOptions = {}): Promise<ServedDevice[]> {
    return (await this.#ask('GET', '/v1/devices', undefined, options)) as ServedDevice[];
  }

  /**
   * One device, by name.
   *
   * @throws {UblkError} `ERR_UBLK_NO_DEVICE`.
   */
  async device(name: string, options: RequestOptions = {}): Promise<ServedDevice> {
    return (await this.#ask('GET', placeOf(name), undefined, options)) as ServedDevice;
  }

  /**
   * Stops a device without users, or with `force` any device, as `stopDevice` does. The next reload
   * makes the device again.
   *
   * @throws {UblkError} `ERR_UBLK_BUSY` with the users; `ERR_UBLK_NO_DEVICE`.
   */
  async stop(
    name: string,
    { force = false, ...options }: RequestOptions & { readonly force?: boolean | undefined } = {},
  ): Promise<{ readonly id: number; readonly checked: StopCheck }> {
    const done = await this.#ask('POST', `${placeOf(name)}/stop`, { force }, options);
    return done as { readonly id: number; readonly checked: StopCheck };
  }

  /**
   * Limits the requests and bytes per second of a device from now on, in place of all earlier limits: see
   * {@link Device.throttle}. A reload goes back to the limits in the configuration.
   *
   * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`, `ERR_UBLK_NO_DEVICE`.
   */
  async throttle(
    name: string,
    limits: ThrottleOptions = {},
    options: RequestOptions = {},
  ): Promise<{ readonly id: number }> {
    toNativeThrottle(limits);
    const done = await this.#ask('POST', `${placeOf(name)}/throttle`, limits, options);
    return done as { readonly id: number };
  }

  /**
   * Changes the size of a device during the service, and checks in the service that the backing store
   * holds the size: see {@link Device.resize}. A reload goes back to the size in the configuration.
   *
   * @throws {UblkError} `ERR_UBLK_BAD_BACKEND`, `ERR_UBLK_NO_DEVICE`, `ERR_UBLK_UNSUPPORTED`.
   */
  async resize(name: string, size: Size, options: RequestOptions = {}): Promise<ServedDevice> {
    const body = { size: parseSize(size, 'size') };
    return (await this.#ask('POST', `${placeOf(name)}/resize`, body, options)) as ServedDevice;
  }

  /**
   * Leaves a device with `recovery` to another server: see {@link Device.quiesce}.
   *
   * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for a device without `recovery`;
   * `ERR_UBLK_NO_DEVICE`, `ERR_UBLK_UNSUPPORTED`.
   */
  async quiesce(name: string, options: RequestOptions = {}): Promise<{ readonly id: number }> {
    const done = await this.#ask('POST', `${placeOf(name)}/quiesce`, {}, options);
    return done as { readonly id: number };
  }

  /**
   * Freezes the contents of an overlay's disk while clients use the disk: see {@link Device.snapshot}.
   *
   * @throws {UblkError} As {@link Device.snapshot}; `ERR_UBLK_NO_DEVICE`.
   */
  async snapshot(
    name: string,
    { path, ...options }: RequestOptions & SnapshotOptions = {},
  ): Promise<OverlaySnapshot> {
    return await this.#snapshot(name, [], path, options);
  }

  /**
   * Forks an overlay's disk while clients use the disk: see {@link Device.fork}.
   *
   * @example
   * await service.fork('vm1', ['/disks/vm2.layer']);
   *
   * @param children The new files, in the folder of the disk's file.
   * @throws {UblkError} As {@link Device.fork}; `ERR_UBLK_NO_DEVICE`.
   */
  async fork(
    name: string,
    children: readonly (string | URL)[],
    { path, ...options }: RequestOptions & SnapshotOptions = {},
  ): Promise<OverlaySnapshot> {
    const files = checkChildren(children);
    return await this.#snapshot(name, files, path, options);
  }

  /**
   * Merges the frozen layers below an overlay's disk into one while clients use the disk: see
   * {@link Device.flatten}. The `signal` ends the merge, and so does the loss of the connection.
   *
   * @example
   * await service.flatten('vm1', { prune: true });
   *
   * @throws {UblkError} As {@link Device.flatten}; `ERR_UBLK_NO_DEVICE`.
   */
  async flatten(
    name: string,
    { signal, onProgress, ...options }: DeviceFlattenOptions = {},
  ): Promise<OverlayMerged> {
    const body = { ...options, ...(onProgress && { progress: true }) };
    const asked = { signal, onProgress };
    return (await this.#ask('POST', `${placeOf(name)}/flatten`, body, asked)) as OverlayMerged;
  }

  async #snapshot(
    name: string,
    children: readonly string[],
    path: SnapshotOptions['path'],
    options: RequestOptions,
  ): Promise<OverlaySnapshot> {
    const file = path === undefined ? {} : { path: checkAbsolutePath(path, 'path') };
    const body = { children, ...file };
    return (await this.#ask('POST', `${placeOf(name)}/snapshot`, body, options)) as OverlaySnapshot;
  }

  /**
   * Lets the service read its configuration again; resolves when the last device is done. A step that
   * failed has an `error`.
   *
   * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for a wrong configuration, which changes nothing;
   * `ERR_UBLK_UNSUPPORTED` for a service without a configuration to read.
   */
  async reload(options: RequestOptions = {}): Promise<ServiceResult[]> {
    const results = await this.#ask('POST', '/v1/reload', {}, options);
    return (results as ServiceResult[]).map(revive);
  }

  /** The steps that {@link reload} would take. Changes nothing. */
  async plan(options: RequestOptions = {}): Promise<ServiceStep[]> {
    return (await this.#ask('POST', '/v1/reload', { dryRun: true }, options)) as ServiceStep[];
  }

  /**
   * The events of the service from now on, first `hello` with the state. The iteration ends with the
   * service, or when the `signal` aborts. The service cuts the stream of a reader that is 1 MiB late.
   *
   * @example
   * for await (const event of client.events()) console.log(event.time, event.event);
   */
  async *events({ signal }: RequestOptions = {}): AsyncGenerator<ServiceEvent, void> {
    const response = await this.#send('GET', '/v1/events', undefined, { signal });
    try {
      for await (const event of this.#values(response)) yield reviveEvent(event as ServiceEvent);
    } catch (error) {
      if (!signal?.aborted) throw error;
    } finally {
      response.destroy();
    }
  }

  async #ask(
    method: string,
    place: string,
    body: unknown,
    options: RequestOptions & Pick<DeviceFlattenOptions, 'onProgress'>,
  ): Promise<unknown> {
    const response = await this.#send(method, place, body, options);
    let answer: unknown;
    for await (const value of this.#values(response, options.signal)) {
      const { progress } = Object(value) as { readonly progress?: OverlayProgress };
      if (progress) options.onProgress?.(progress);
      else answer = value;
    }
    if (answer === undefined) throw this.#lost(new Error('the connection was closed'));
    const { error } = Object(answer) as { readonly error?: Failure };
    if (error !== undefined && (response.statusCode !== 200 || options.onProgress)) {
      throw toError(error);
    }
    return answer;
  }

  /** The lines of a response, each a value in JSON. */
  async *#values(response: IncomingMessage, signal?: AbortSignal): AsyncGenerator<unknown, void> {
    try {
      for await (const line of lines(response)) yield JSON.parse(line) as unknown;
    } catch (error) {
      throw signal?.aborted ? error : this.#lost(error);
    }
  }

  async #send(
    method: string,
    path: string,
    body: unknown,
    { signal }: RequestOptions,
  ): Promise<IncomingMessage> {
    // Few programs are clients: loaded here, HTTP costs the import of the package nothing.
    const http = await import('node:http');
    return await new Promise((resolve, reject) => {
      const given = { socketPath: this.path, agent: false, method, path };
      const request = http.request({ ...given, ...(signal && { signal }) }, resolve);
      request.once('error', (error) => reject(signal?.aborted ? error : this.#lost(error)));
      request.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  #lost(cause: unknown): UblkError {
    const { code } = Object(cause) as { readonly code?: unknown };
    if (code === 'EACCES' || code === 'EPERM') {
      const message = `this user may not use the control socket ${this.path}`;
      const hint = 'ask as root, or as a member of the group of the socket';
      return new UblkError(UblkErrorCode.Permission, message, { hint, cause });
    }
    const isThere = code !== 'ENOENT' && code !== 'ECONNREFUSED';
    const message = isThere
      ? `the service at ${this.path} ended before its answer: ${messageOf(cause)}`
      : `no service listens at ${this.path}`;
    const hint = 'start one with ublk serve, or name its socket (--socket)';
    return new UblkError(UblkErrorCode.NoService, message, { hint, cause });
  }
}

async function* lines(response: IncomingMessage): AsyncGenerator<string, void> {
  let rest = '';
  for await (const part of response.setEncoding('utf8') as AsyncIterable<string>) {
    const all = (rest + part).split('\n');
    rest = all.pop()!;
    yield* all;
  }
}

function placeOf(name: string): string {
  return `/v1/devices/${encodeURIComponent(name)}`;
}

/** The errors of a service are errors here, too. */
function revive(result: ServiceResult): ServiceResult {
  const { error } = result;
  return error === undefined ? result : { ...result, error: toError(error) };
}

function reviveEvent(event: ServiceEvent): ServiceEvent {
  switch (event.event) {
    case 'hello':
      return {
        ...event,
        service: { ...event.service, results: event.service.results.map(revive) },
      };
    case 'reload':
      return { ...event, results: event.results.map(revive) };
    case 'warning':
      return { ...event, warning: toError(event.warning) };
    case 'end':
      return event.error === undefined ? event : { ...event, error: toError(event.error) };
    default:
      return event;
  }
}

/**
 * A service that listens at a control socket: of `ublk serve`, or of {@link openControl}.
 *
 * @param path The socket; by default the socket of root, or of this user.
 *
 * @example
 * const service = await connectService();
 * await service.resize('data', '2GiB');
 *
 * @throws {UblkError} `ERR_UBLK_NO_SERVICE` where nobody listens; `ERR_UBLK_PERMISSION`.
 */
export async function connectService(path: string = defaultSocket()): Promise<ServiceClient> {
  const client = new ServiceClient(checkAbsolutePath(path, 'path'));
  await client.info();
  return client;
}
