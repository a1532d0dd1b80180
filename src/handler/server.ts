import { Device } from '../device.ts';
import type { UblkError } from '../errors.ts';
import {
  native,
  type NativeBridge,
  type NativeDevice,
  type NativeDeviceOptions,
  type NativeEnd,
  type NativeReport,
} from '../native.ts';
import type { Target } from '../targets/index.ts';
import { checkHandler, isHandler, type CheckedHandler } from './handler.ts';
import { HandlerQueue } from './queue.ts';
import { toWarning } from './reports.ts';
import type { Handler } from './types.ts';

/** The most pieces of a plan. */
const MAX_PIECES = 64;
/** What the addon would choose; the bridge must be as wide. */
const DEFAULTS = { queues: 1, depth: 128 };

/** Serves a device's requests in this thread, from before it is created until it has ended. */
export class HandlerServer {
  readonly #checked: CheckedHandler;
  readonly #shape: { readonly queues: number; readonly depth: number };
  readonly #request: NativeDeviceOptions;
  readonly #early: UblkError[] = [];
  readonly #bridge: NativeBridge;
  #warn: ((warning: UblkError) => void) | undefined;

  /** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`. */
  constructor(definition: Handler, device: Omit<NativeDeviceOptions, 'target'>) {
    this.#checked = checkHandler(definition);
    const { queues, depth } = { ...DEFAULTS, ...device };
    this.#shape = { queues, depth };
    this.#bridge = this.#open();
    this.#request = {
      ...(this.#checked.mapsOnly ? {} : { buffers: ['copy'] }),
      ...device,
      queues,
      depth,
      target: { ...this.#checked.native, bridge: this.#bridge.id },
    };
  }

  /** The device, as the addon is asked for it. */
  get request(): NativeDeviceOptions {
    return this.#request;
  }

  /** Tells what goes wrong, and what has gone wrong before. */
  listen(warn: (warning: UblkError) => void): void {
    this.#warn = warn;
    for (const warning of this.#early.splice(0)) warn(warning);
  }

  /** The device is gone. */
  release(): void {
    this.#bridge.release();
  }

  #open(): NativeBridge {
    const { timeoutMs, backends } = this.#checked;
    const maxPieces = backends.length > 0 ? MAX_PIECES : 0;
    const options = { ...this.#shape, maxPieces, timeoutMs };
    const report = (what: NativeReport) => this.#tell(toWarning(what, timeoutMs));
    const bridge = native().createBridge(options, report);
    for (let queue = 0; queue < options.queues; queue += 1) this.#serve(bridge.id, queue);
    return bridge;
  }

  #serve(bridge: number, queue: number): void {
    let served: HandlerQueue | undefined;
    const channel = native().openChannel(bridge, queue, () => served?.serve());
    const { methods, backends } = this.#checked;
    const warn = (warning: UblkError) => this.#tell(warning);
    const { depth } = this.#shape;
    served = new HandlerQueue(channel, { queue, depth, methods, backends, warn });
    served.serve();
  }

  /** Aside, since whoever listens may throw, and must not do so amidst requests. */
  #tell(warning: UblkError): void {
    queueMicrotask(() => {
      if (this.#warn) this.#warn(warning);
      else this.#early.push(warning);
    });
  }
}

/** What serves the requests of a device with this target in JavaScript; nothing if nobody does. */
export function serverOf(
  target: Target | Handler,
  request: NativeDeviceOptions,
): HandlerServer | undefined {
  return isHandler(target) ? new HandlerServer(target, request) : undefined;
}

/** Creates a device that `server`, if there is one, serves until it has ended. */
export async function serve(
  server: HandlerServer | undefined,
  ended: Promise<NativeEnd>,
  create: () => Promise<NativeDevice>,
): Promise<Device> {
  try {
    const device = new Device(await create(), ended);
    server?.listen((warning) => device.warn(warning));
    void ended.then(() => server?.release());
    return device;
  } catch (error) {
    server?.release();
    throw error;
  }
}
