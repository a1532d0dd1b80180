import type { Device } from '../device.ts';
import { unwrap, type UblkError } from '../errors.ts';
import { native, type NativeBridge, type NativeDeviceOptions } from '../native.ts';
import { checkHandler, type CheckedHandler } from './handler.ts';
import type { HandlerShape } from './messages.ts';
import type { HandlerModule } from './module.ts';
import { WorkerPool } from './pool.ts';
import { HandlerQueue } from './queue.ts';
import { toWarning } from './reports.ts';
import { checkKeepers, fromText, inTime, keeperOf, toText, type StateKeeper } from './state.ts';
import type { Handler } from './types.ts';
import { Warnings } from './warnings.ts';

/** The largest number of pieces of a plan. */
const MAX_PIECES = 64;
/** The addon's default depth; the bridge needs the same depth. */
const DEPTH = 128;

/** The options of a device without the target. */
export type DeviceShape = Omit<NativeDeviceOptions, 'target'>;

/** Answers a device's requests in JavaScript, from before the creation to the end of the device. */
export class HandlerServer {
  readonly #bridge: NativeBridge;
  readonly #warnings: Warnings;
  readonly #pool: WorkerPool | undefined;
  /** What keeps the handler's state; undefined for a handler without `suspend` and `resume`. */
  #keeper: StateKeeper | undefined;
  #ended: Promise<unknown> = Promise.resolve();
  /** The state at the end of the device, once somebody has asked for it. */
  #state: Promise<string | undefined> | undefined;
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
      if (shape.keepsState) server.#keeper = keeperOf(handler);
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
      if (shape.keepsState) server.#keeper = pool;
      return server;
    } catch (error) {
      await (server ?? pool).release();
      throw error;
    }
  }

  /**
   * Passes warnings to the device; the loss of the answering threads ends the device. When the device has
   * ended, the server ends too.
   */
  attach(device: Device, ended: Promise<unknown>): void {
    this.#warnings.listen(device);
    this.#ended = ended;
    const release = (): Promise<void> => this.release();
    void ended.then(() => this.#state).then(release, release);
  }

  /** The number of threads whose handlers keep state. */
  get keepers(): number {
    return this.#keeper === undefined ? 0 : (this.#pool?.size ?? 1);
  }

  /** Resolves when the device has ended: to the handler's state as text, if the handler keeps state. */
  suspendAtEnd(): Promise<string | undefined> {
    const keeper = this.#keeper;
    const state: Promise<string | undefined> = this.#ended.then(async () =>
      // Nobody has asked last but this call, and the handler has a state.
      this.#state === state && keeper !== undefined
        ? toText(await inTime('suspend', keeper.suspend()))
        : undefined,
    );
    state.catch(() => {});
    this.#state = state;
    return state;
  }

  /** The device has not ended: the handler goes on. */
  keepOn(): void {
    this.#state = undefined;
  }

  /**
   * Gives the handler the state of the last server's handler, before the first request.
   *
   * @throws {UblkError} `ERR_UBLK_HANDLER`, `ERR_UBLK_TIMEOUT`.
   */
  async resume(text: string): Promise<void> {
    const states = fromText(text);
    checkKeepers(states.length, this.keepers);
    await inTime('resume', this.#keeper!.resume(states));
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
