import { Device } from '../device.ts';
import { unwrap, type UblkError } from '../errors.ts';
import {
  native,
  type NativeBridge,
  type NativeDevice,
  type NativeDeviceOptions,
  type NativeEnd,
} from '../native.ts';
import type { Target } from '../targets/index.ts';
import { checkHandler, isHandler, type CheckedHandler } from './handler.ts';
import type { HandlerShape } from './messages.ts';
import { isHandlerModule, type HandlerModule } from './module.ts';
import { WorkerPool } from './pool.ts';
import { HandlerQueue } from './queue.ts';
import { toWarning } from './reports.ts';
import type { Handler } from './types.ts';
import { Warnings } from './warnings.ts';

/** The largest number of pieces of a plan. */
const MAX_PIECES = 64;
/** The addon's default depth; the bridge needs the same depth. */
const DEPTH = 128;

/** The options of a device without the target. */
type DeviceShape = Omit<NativeDeviceOptions, 'target'>;

/** Answers a device's requests in JavaScript, from before the creation to the end of the device. */
export class HandlerServer {
  readonly #bridge: NativeBridge;
  readonly #warnings: Warnings;
  readonly #pool: WorkerPool | undefined;
  /** The device's options for the addon. */
  readonly request: NativeDeviceOptions;

  private constructor(
    shape: HandlerShape,
    device: DeviceShape & { readonly queues: number; readonly depth: number },
    warnings: Warnings,
    pool?: WorkerPool,
  ) {
    const { queues, depth } = device;
    const { backends } = shape;
    const timeoutMs = shape.timeoutMs ?? (device.unprivileged === true ? 20_000 : 30_000);
    const maxPieces = backends.length > 0 ? MAX_PIECES : 0;
    this.#warnings = warnings;
    this.#pool = pool;
    this.#bridge = unwrap(
      native().createBridge({ queues, depth, maxPieces, timeoutMs }, (report) =>
        warnings.tell(toWarning(report, timeoutMs)),
      ),
    );
    this.request = {
      ...(shape.mapsOnly ? {} : { buffers: [shape.zoneSize === undefined ? 'copy' : 'user-copy'] }),
      ...device,
      target: { ...shape.native, bridge: this.#bridge.id },
    };
  }

  /**
   * Answers in this thread.
   *
   * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
   */
  static here(handler: Handler, device: DeviceShape): HandlerServer {
    const checked = checkHandler(handler);
    const { methods: _ours, ...shape } = checked;
    const { queues = 1, depth = DEPTH, spinUsec = 0 } = device;
    // Spinning on a queue would delay the requests of the other queues.
    const spin = queues === 1 ? spinUsec : 0;
    const warnings = new Warnings();
    const server = new HandlerServer(shape, { ...device, queues, depth }, warnings);
    try {
      server.#open(checked, { queues, depth, spin });
      return server;
    } catch (error) {
      void server.release();
      throw error;
    }
  }

  #open(
    { methods, mapped, backends, zoneSize }: CheckedHandler,
    { queues, depth, spin }: { queues: number; depth: number; spin: number },
  ): void {
    const warn = (warning: UblkError): void => this.#warnings.tell(warning);
    for (let queue = 0; queue < queues; queue += 1) {
      let served: HandlerQueue | undefined;
      const channel = unwrap(
        native().openChannel(this.#bridge.id, queue, spin, () => served?.serve()),
      );
      served = new HandlerQueue(channel, {
        queue,
        depth,
        methods,
        mapped,
        backends,
        zoneSize,
        spins: spin > 0,
        warn,
      });
      served.serve();
    }
  }

  /** Answers in worker threads. */
  static async inWorkers(module: HandlerModule, device: DeviceShape): Promise<HandlerServer> {
    const { queues = module.workers, depth = DEPTH, spinUsec = 0 } = device;
    // Without the addon, the program of a worker is missing as well.
    native();
    const warnings = new Warnings();
    const { pool, shape } = await WorkerPool.start(module, warnings);
    let server: HandlerServer | undefined;
    try {
      server = new HandlerServer(shape, { ...device, queues, depth }, warnings, pool);
      const all = Array.from({ length: queues }, (_, queue) => queue);
      await pool.serve({ bridge: server.#bridge.id, queues: all, depth, spinUsec });
      return server;
    } catch (error) {
      await (server ?? pool).release();
      throw error;
    }
  }

  /** Passes warnings to the device; the loss of the answering threads ends the device. */
  attach(device: Device): void {
    this.#warnings.listen(device);
  }

  /** Frees the bridge and the workers after the end of the device. */
  async release(): Promise<void> {
    try {
      this.#bridge.release();
    } finally {
      await this.#pool?.release();
    }
  }
}

/** The server for a handler's device; undefined for a native target. */
export async function serverOf(
  target: Target | Handler | HandlerModule,
  device: DeviceShape,
): Promise<HandlerServer | undefined> {
  if (isHandlerModule(target)) return HandlerServer.inWorkers(target, device);
  return isHandler(target) ? HandlerServer.here(target, device) : undefined;
}

/** Creates a device; `server`, if given, answers requests until the device has ended. */
export async function serve(
  server: HandlerServer | undefined,
  ended: Promise<NativeEnd>,
  create: () => Promise<NativeDevice>,
): Promise<Device> {
  let native: NativeDevice | undefined;
  try {
    native = await create();
    const device = new Device(native, ended);
    server?.attach(device);
    void ended.then(() => server?.release());
    return device;
  } catch (error) {
    await native?.release();
    await server?.release();
    throw error;
  }
}
