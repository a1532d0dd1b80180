import { EventEmitter } from 'node:events';
import { inspect, type InspectOptions } from 'node:util';

import { createDevice } from '../create.ts';
import type { Device } from '../device.ts';
import { stopDevice } from '../devices.ts';
import { invalid, toProcessWarning, toUblkError, UblkError, UblkErrorCode } from '../errors.ts';
import { deleteOrphan } from '../orphans.ts';
import { recoverDevice, takeDevice, type RecoverOptions, type TakeContext } from '../recover.ts';
import { RECALLED_KEYS } from '../serving.ts';
import { checkProgramConfig, type NamedOptions, type ServiceConfig } from './config.ts';
import type { OwnDevice, ServiceAction, ServiceStep } from './plan.ts';
import { tell } from '../tell.ts';
import type { Stalled } from '../watchdog.ts';
import type { Stall } from './stalls.ts';

/** A step taken; with an error, if the step failed. */
export interface ServiceResult extends ServiceStep {
  readonly error?: UblkError | undefined;
}

/** The events of a {@link Service}. */
export interface ServiceEvents {
  /** A device can be opened. */
  serve: [name: string, device: Device];
  /** The service of a device has ended; `error` is present if the device failed. */
  end: [name: string, device: Device, error?: UblkError];
  /**
   * A device warns of a failed request: see {@link DeviceEvents.warning}. Node.js prints the first
   * warning of each code of each device, with listeners here too.
   */
  warning: [name: string, device: Device, warning: UblkError];
  /** The watchdog of a device reports a request or a thread: see {@link DeviceEvents.stalled}. */
  stalled: [name: string, device: Device, stalled: Stalled];
  /** Requests wait, and none completes; only in a service that looks for stalls (`ublk serve` does). */
  stall: [name: string, device: Device, stall: Stall];
  /** After `stall`: a request has completed. */
  resume: [name: string, device: Device];
  /** A reload has ended, with a step per device. */
  reload: [results: readonly ServiceResult[]];
  /** The process `pid` serves all devices of the service from now on, and the service has none: {@link handOver}. */
  handOver: [pid: number];
}

/** A device of a service. */
interface Served {
  readonly device: Device;
  readonly options: NamedOptions;
}

/**
 * Devices served by name in one process, made by {@link serve}. A device that fails or is stopped
 * leaves the service, and the other devices stay; the next {@link reload} makes the device again.
 */
export class Service extends EventEmitter<ServiceEvents> {
  readonly #served = new Map<string, Served>();
  #last: Promise<unknown> = Promise.resolve();
  #wanted: readonly NamedOptions[] = [];
  #results: readonly ServiceResult[] = [];
  #ready = false;
  /** The process that has taken all devices over. */
  #successor: number | undefined;
  /** @internal Whether another process is taking the devices over. */
  handingOver = false;

  /** The devices of this service now, by name. */
  get devices(): ReadonlyMap<string, Device> {
    return new Map([...this.#served].map(([name, { device }]) => [name, device]));
  }

  /** Whether the first {@link reload} has ended: every device is served, or has failed. */
  get ready(): boolean {
    return this.#ready;
  }

  /** The steps of the last {@link reload}. */
  get results(): readonly ServiceResult[] {
    return this.#results;
  }

  /**
   * Gives the machine the devices of a configuration: keeps matching devices, recovers devices
   * without a server, creates missing devices, and changes sizes during the service. Resolves to
   * one step per device; a failed step has an `error`, and the other steps continue. Reloads run
   * one after another.
   *
   * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for a wrong configuration, before anything is
   * touched; the errors of {@link listDevices}.
   */
  async reload(config: ServiceConfig, signal?: AbortSignal): Promise<readonly ServiceResult[]> {
    return await this.apply(checkProgramConfig(config), signal);
  }

  /** The steps of a {@link reload}, without changing anything. */
  async plan(config: ServiceConfig): Promise<ServiceStep[]> {
    return await this.planFor(checkProgramConfig(config));
  }

  /** @internal {@link plan} for a configuration already checked. */
  async planFor(wanted: readonly NamedOptions[]): Promise<ServiceStep[]> {
    const [{ plan }, { observe }] = await Promise.all([
      import('./plan.ts'),
      import('./observe.ts'),
    ]);
    return plan(wanted, await observe(), this.#own());
  }

  /** @internal {@link reload} with a configuration already checked. */
  apply(wanted: readonly NamedOptions[], signal?: AbortSignal): Promise<readonly ServiceResult[]> {
    return this.exclusively(() => this.#apply(wanted, signal));
  }

  /**
   * @internal Tries the last step of one device once more; undefined if the device is served, or not
   * wanted any more.
   */
  async retry(name: string, signal?: AbortSignal): Promise<ServiceResult | undefined> {
    return await this.exclusively(async () => {
      if (this.#successor !== undefined || this.#served.has(name)) return undefined;
      const steps = await this.planFor(this.#wanted);
      const step = steps.find((one) => one.name === name && one.action !== 'stop');
      if (step === undefined) return undefined;
      const options = this.#wanted.find((one) => one.name === name);
      const result = await this.#attempt(step, options, signal);
      this.#results = this.#results.map((one) => (one.name === name ? result : one));
      return result;
    });
  }

  /** @internal Runs `job` while no reload and no hand-over runs. */
  exclusively<T>(job: () => Promise<T>): Promise<T> {
    const done = this.#last.then(job);
    this.#last = done.catch(() => {});
    return done;
  }

  /** @internal The devices, with the options of each. */
  get entries(): ReadonlyMap<string, Served> {
    return new Map(this.#served);
  }

  /** @internal Serves a device that waits for a server, or whose server is about to leave. */
  async adopt(id: number, options: NamedOptions, context: TakeContext = {}): Promise<Device> {
    const device = await takeDevice(id, servingOf(options), context);
    this.#add(options, device);
    return device;
  }

  /** @internal The process `pid` has all devices. */
  handedTo(pid: number): void {
    this.#successor = pid;
    tell(this, 'handOver', pid);
  }

  /** @internal Resolves when no reload and no hand-over is under way. */
  async settled(): Promise<void> {
    await this.#last;
  }

  /**
   * Closes all devices of the service, as {@link Device.close} does, also devices with `recovery`.
   */
  async close(): Promise<void> {
    await this.#last;
    await Promise.all([...this.#served.values()].map(({ device }) => device.close()));
  }

  /** Ends all devices of the service with the scope of `await using`, as a {@link Device} ends. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#last;
    const all = [...this.#served.values()];
    await Promise.all(all.map(({ device }) => device[Symbol.asyncDispose]()));
  }

  /** The present state for `JSON.stringify()`. */
  toJSON(): object {
    const { ready, results } = this;
    return { ready, devices: Object.fromEntries(this.devices), results };
  }

  async #apply(
    wanted: readonly NamedOptions[],
    signal?: AbortSignal,
  ): Promise<readonly ServiceResult[]> {
    if (this.#successor !== undefined) throw handed(this.#successor);
    this.#wanted = wanted;
    const steps = await this.planFor(wanted);
    const options = new Map(wanted.map((one) => [one.name, one]));
    // A stopped device frees the number and the files for another device.
    const stops = steps.filter(({ action }) => action === 'stop');
    const rest = steps.filter(({ action }) => action !== 'stop');
    const stopped = await Promise.all(stops.map((step) => this.#attempt(step, undefined, signal)));
    const done = rest.map((step) => this.#attempt(step, options.get(step.name), signal));
    this.#results = [...stopped, ...(await Promise.all(done))];
    this.#ready = true;
    tell(this, 'reload', this.#results);
    return this.#results;
  }

  async #attempt(
    step: ServiceStep,
    options: NamedOptions | undefined,
    signal: AbortSignal | undefined,
  ): Promise<ServiceResult> {
    try {
      if (step.action === 'refuse') throw refused(step);
      await this.#do(step, options, signal);
      return step;
    } catch (error) {
      const isAborted = signal?.aborted && !UblkError.is(error);
      return { ...step, error: isAborted ? aborted(step, error) : toUblkError(error) };
    }
  }

  async #do(step: ServiceStep, options?: NamedOptions, signal?: AbortSignal): Promise<void> {
    const { name, action, id = -1 } = step;
    const served = this.#served.get(name);
    // A device that has ended meanwhile has left the service, and its number may be another's.
    if (action === 'stop' && served !== undefined) await stopDevice(id);
    // The end of the device removes the device from the service.
    if (action === 'stop') await served?.device.closed.catch(() => {});
    if (action === 'resize') await served?.device.resize(step.size ?? 0);
    if (action === 'resize' || action === 'throttle') {
      served?.device.throttle(options?.throttle);
    }
    if (options === undefined || action === 'keep' || action === 'stop') return;
    if (served !== undefined)
      this.#served.set(name, { ...served, options: changed(served.options, options, action) });
    else this.#add(options, await open(step, options, signal));
  }

  #add(options: NamedOptions, device: Device): void {
    const { name } = options;
    const served = { device, options };
    this.#served.set(name, served);
    const end = (error?: UblkError): void => {
      if (this.#served.get(name)?.device === device) this.#served.delete(name);
      tell(this, 'end', name, device, ...(error ? [error] : ([] as [])));
    };
    device.closed.then(() => end(), end);
    device.on('stalled', (stalled) => {
      const isHeard = tell(this, 'stalled', name, device, stalled);
      if (!isHeard) process.emitWarning(stalled.message);
    });
    const printed = new Set<string>();
    device.on('warning', (warning) => {
      tell(this, 'warning', name, device, warning);
      if (printed.has(warning.code)) return;
      printed.add(warning.code);
      process.emitWarning(toProcessWarning(warning));
    });
    tell(this, 'serve', name, device);
  }

  #own(): ReadonlyMap<string, OwnDevice> {
    return new Map(
      [...this.#served].map(([name, { device, options }]) => {
        const { id, size, logicalBlockSize } = device;
        return [name, { id, size, logicalBlockSize, options }];
      }),
    );
  }
}

// The text for `console.log()`.
Object.defineProperty(Service.prototype, inspect.custom, {
  value(this: Service, _depth: number, options: InspectOptions) {
    return `Service ${inspect(this.toJSON(), options)}`;
  },
});

/** The options of a device whose size or limits have changed, and nothing else. */
function changed(before: NamedOptions, now: NamedOptions, action: ServiceAction): NamedOptions {
  const { throttle, target } = now;
  return { ...before, throttle, ...(action === 'resize' && { target }) };
}

/** Makes the device of a step. */
async function open(
  { action, id = -1 }: ServiceStep,
  options: NamedOptions,
  signal?: AbortSignal,
): Promise<Device> {
  if (action === 'recover') return await recoverDevice(id, servingOf(options), { signal });
  if (action === 'replace') await deleteOrphan(id);
  return await createDevice(options, { signal });
}

/** @internal The options of a recovery, of the options of a device. */
export function servingOf(options: NamedOptions): RecoverOptions {
  const keys = RECALLED_KEYS.filter((key) => options[key] !== undefined);
  return {
    target: options.target,
    ...Object.fromEntries(keys.map((key) => [key, options[key]])),
  };
}

function handed(pid: number): UblkError {
  const message = `process ${pid} has taken the devices of this service over`;
  return new UblkError(UblkErrorCode.Closed, message);
}

function refused({ name, why }: ServiceStep): UblkError {
  const hint = 'give it another id, or remove the other device';
  return invalid(`device '${name}' cannot be created: ${why}`, hint);
}

function aborted({ name }: ServiceStep, cause: unknown): UblkError {
  return new UblkError(UblkErrorCode.Closed, `device '${name}' was given up`, { cause });
}

/** How {@link serve} can be cancelled. */
export interface ServeContext {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Serves the devices of a configuration. Can be called again, in a new process too: {@link
 * Service.reload} describes the effect on each device. A device that cannot be served does not
 * hinder the other devices: {@link Service.results} names the device and the error.
 *
 * @example
 * const service = await serve({
 *   devices: { data: { target: targets.file('/srv/data.img'), recovery: 'reissue' } },
 * });
 * console.log(service.devices.get('data')?.path); // /dev/ublkb0
 *
 * @throws {UblkError} The errors of {@link Service.reload}; the error of the first device, if none
 * of the devices for this process can be served.
 */
export async function serve(
  config: ServiceConfig,
  { signal }: ServeContext = {},
): Promise<Service> {
  const service = new Service();
  const results = await service.reload(config, signal);
  const failed = results.find(({ error }) => error !== undefined)?.error;
  if (failed !== undefined && service.devices.size === 0) throw failed;
  return service;
}
