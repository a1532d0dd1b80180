import { EventEmitter } from 'node:events';
import { inspect, type InspectOptions } from 'node:util';

import { announce, announceEnd } from './channels.ts';
import { checkBoolean, checkKeys, checkPath } from './check.ts';
import { watchCompletions, type CompletionBatch, type CompletionsOptions } from './completions.ts';
import { debug } from './debug.ts';
import { toError, toProcessWarning, UblkError, UblkErrorCode, unwrap } from './errors.ts';
import type { Buffering, Counters, DeviceInfo, DeviceStats } from './info.ts';
import { SharedMemory, type ShareOptions } from './memory.ts';
import type { NativeDevice, NativeEnd } from './native.ts';
import { parseSize, type Size } from './size.ts';

/**
 * How a device ended: by its {@link Device.close}, because another program stopped it, or because it
 * was left to its next server, here or elsewhere, and waits for {@link recoverDevice}.
 */
export type EndReason = 'closed' | 'stopped' | 'quiesced';

/** The events of a {@link Device}. */
export interface DeviceEvents {
  /** The device is served no more, and gone unless it was quiesced. The last event. */
  close: [];
  /** The device failed and is being taken down; `close` follows. */
  error: [error: UblkError];
  /**
   * A request went wrong in JavaScript, and the device serves on: a handler threw
   * (`ERR_UBLK_HANDLER`), did not answer in time (`ERR_UBLK_REQUEST_TIMEOUT`), answered what had
   * ended (`ERR_UBLK_LATE_ANSWER`), and others. Where nobody listens, the first of each kind is
   * printed as a warning of the process.
   */
  warning: [warning: UblkError];
}

// The longest interval that timers take: one wake-up in 24 days.
const LONGEST_MS = 2 ** 31 - 1;

/** How a device is asked to end. */
type Way = 'close' | 'quiesce' | 'part' | 'release';

/**
 * An open block device, made by {@link createDevice}. The process stays alive as long as it is
 * open (see {@link Device.unref}).
 *
 * When the program ends, or the worker that opened the device, a device with `recovery` is left to
 * its next server ({@link recoverDevice}), and one without is closed: by an uncaught exception, by
 * `process.exit()`, or since nothing keeps the event loop alive. A signal without a listener
 * (Ctrl-C, SIGTERM) ends a program of Node.js at once, which leaves a device without `recovery`
 * behind, dead: see {@link closeOnSignals}. `ublk delete` removes such a device.
 *
 * Never wait for I/O on the device with a synchronous call (`execSync('mount …')`) in a program
 * whose own JavaScript serves it; targets of {@link targets} are served by threads of their own
 * and do not mind.
 */
export class Device extends EventEmitter<DeviceEvents> {
  readonly #native: NativeDevice;
  #info: DeviceInfo;
  readonly #buffers: Buffering;
  readonly #closed: Promise<EndReason>;
  /** Resolves when the device has ended, however it has; never rejects. */
  readonly #over: Promise<NativeEnd>;
  // A handle of its own keeps the event loop alive, since the addon's are all weak.
  readonly #alive = setInterval(() => {}, LONGEST_MS);
  /** Whether the program lets the device keep it alive. */
  #kept = true;
  /** Calls that wait for the end, and hear what the device fails of. */
  #waiting = 0;
  #ended = false;
  /** What is under way or done; what fails is forgotten, so that the next call tries again. */
  readonly #asked = new Map<Way, Promise<void>>();
  readonly #printed = new Set<string>();

  /** @internal */
  constructor(native: NativeDevice, ended: Promise<NativeEnd>) {
    super();
    this.#native = native;
    this.#info = native.info();
    const { mode, userCopy, shared } = native.buffers();
    this.#buffers = Object.freeze({
      mode,
      exchange: native.exchangeMode(),
      ...(userCopy && { userCopy }),
      ...(shared && { shared }),
    });
    let settle!: { resolve: (reason: EndReason) => void; reject: (error: UblkError) => void };
    this.#closed = new Promise((resolve, reject) => (settle = { resolve, reject }));
    this.#over = ended.then((end) => {
      const error = this.#end(end);
      if (error) settle.reject(error);
      else settle.resolve(end.reason === 'failed' ? 'stopped' : end.reason);
      return end;
    });
    announce(this);
    debug('%s: served with %O', this.path, this);
  }

  /** The number N of `/dev/ublkbN`. */
  get id(): number {
    return this.#info.id;
  }

  /** The block device, `/dev/ublkbN`; it exists and can be opened until {@link close}. */
  get path(): string {
    return this.#info.path;
  }

  /** Its size in bytes; see {@link resize}. */
  get size(): number {
    return this.#info.size ?? 0;
  }

  /** The unit of addressing in bytes. */
  get logicalBlockSize(): number {
    return this.#info.logicalBlockSize ?? 512;
  }

  /** Whether writes are refused. */
  get readOnly(): boolean {
    return this.#info.readOnly ?? false;
  }

  /** Hardware queues, as the kernel granted them. */
  get queues(): number {
    return this.#info.queues;
  }

  /** Requests of one queue in flight at once, as the kernel granted them. */
  get depth(): number {
    return this.#info.depth;
  }

  /** The largest request in bytes, as the kernel granted it. */
  get maxIoBytes(): number {
    return this.#info.maxIoBytes;
  }

  /** How requests and their data reach the server, as negotiated with the kernel. */
  get buffers(): Buffering {
    return this.#buffers;
  }

  /** The features in force, by the kernel's names without `UBLK_F_`. */
  get features(): readonly string[] {
    return this.#info.features;
  }

  /**
   * Settles when the device is served no more, whoever ended it: with how it ended, or rejects with
   * the {@link UblkError} that it failed of.
   *
   * A failure that is handled neither here nor by an `'error'` listener ends the process, as any
   * unhandled rejection does.
   */
  get closed(): Promise<EndReason> {
    return this.#closed;
  }

  /**
   * What was done so far; after the end, what was done in all.
   *
   * @example
   * console.log(device.stats().total.zeroCopyBytes);
   */
  stats(): DeviceStats {
    const queues = this.#native.stats();
    return { queues, total: sum(queues) };
  }

  /**
   * What becomes of each request from now on, in batches. Where batches are taken too slowly,
   * completions are dropped and counted, and the device goes on at its speed. Ends with the device.
   *
   * A device that nobody watches pays nothing for this. One that is watched reads the clock twice
   * for each request, and a lone request takes one system call more.
   *
   * @example
   * for await (const { completions } of device.completions()) {
   *   for (const { op, offset, length, latency } of completions) audit(op, offset, length, latency);
   * }
   *
   * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
   */
  completions(options: CompletionsOptions = {}): AsyncIterableIterator<CompletionBatch> {
    return watchCompletions(this.#native, this.#closed, options);
  }

  /**
   * Lets clients share memory: all of a file of memory, for example of a tmpfs or hugetlbfs, or a
   * memfd of another process (`/proc/PID/fd/N`). Requests with direct I/O whose pages follow each
   * other in it are served without a copy, in every buffer mode. The pages stay in memory until
   * the memory is closed, or the device.
   *
   * The kernel waits until no request is under way; meanwhile new ones wait.
   *
   * @example
   * const device = await createDevice({ target, buffers: ['shared', 'copy'] });
   * await using memory = await device.share('/dev/hugepages/clients');
   *
   * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` without `shared` among the device's buffers, or
   * for what is no memory in whole pages, at most 4 GiB.
   */
  async share(path: string | URL, options: ShareOptions = {}): Promise<SharedMemory> {
    const file = checkPath(path, 'path');
    checkKeys(options, 'the options of share()', ['readOnly']);
    const { readOnly = false } = options;
    checkBoolean(readOnly, 'readOnly');
    const index = unwrap(await this.#native.share(file, readOnly));
    return new SharedMemory(this.#native, file, index);
  }

  /** Lets the process end although the device is open; see {@link Device} for what becomes of it. */
  unref(): this {
    this.#kept = false;
    if (this.#waiting === 0) this.#alive.unref();
    return this;
  }

  /** Takes {@link unref} back. */
  ref(): this {
    this.#kept = true;
    if (!this.#ended) this.#alive.ref();
    return this;
  }

  /**
   * Changes the size of the device while it is used (Linux 6.16): a multiple of its logical block
   * size. What lies behind it must hold as much: grow a file before the device, and shrink it
   * after.
   *
   * @example
   * await truncate('disk.img', 2 ** 31);
   * await device.resize('2GiB');
   *
   * @throws {UblkError} `ERR_UBLK_BAD_BACKEND` when what lies behind it holds less;
   * `ERR_UBLK_INVALID_ARGUMENT`; `ERR_UBLK_UNSUPPORTED` before Linux 6.16, or when the target's
   * size is fixed.
   */
  async resize(size: Size): Promise<void> {
    this.#info = unwrap(await this.#native.resize(parseSize(size, 'size')));
  }

  /**
   * Leaves the device to another server, for an upgrade of this one: what has begun is ended, and
   * later requests wait for {@link recoverDevice}, or fail, as the option `recovery` says. The
   * device stays where it is, mounted or not. After an error the device is served on and keeps the
   * process alive, unless it has ended; the next call tries again.
   *
   * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for a device without `recovery`;
   * `ERR_UBLK_UNSUPPORTED` before Linux 6.16, where only the end of the server's process hands over;
   * and while the kernel does not count requests (`queue/iostats` was set to 0 later);
   * `ERR_UBLK_TIMEOUT` when requests under way do not end: the device has not been left yet. Its
   * server leaves it when they have ended, and the device ends then as `quiesced`; `ERR_UBLK_CLOSED` when the device
   * has ended otherwise, also by a {@link close} meanwhile.
   */
  async quiesce(): Promise<void> {
    if (this.#asked.has('close')) await this.close();
    await this.#ask('quiesce');
    const { reason } = await this.#over;
    if (reason === 'quiesced') return;
    throw new UblkError(UblkErrorCode.Closed, `${this.path} has ended and cannot be recovered`);
  }

  /**
   * Stops serving and removes the device, also one with `recovery`. Requests that are under way end
   * first; later calls give the same promise. A program that has the device open or mounted sees
   * errors from then on. After an error the device is served on and keeps the process alive, unless
   * it has ended; the next call tries again.
   *
   * @throws {UblkError} `ERR_UBLK_TIMEOUT`, `ERR_UBLK_BUSY` when the kernel does not let go of it
   * in time.
   */
  close(): Promise<void> {
    return this.#ask('close');
  }

  /**
   * Ends the device with the scope of `await using`, also when an exception leaves the scope:
   * {@link close}; but a device with `recovery` that a program has open or mounted is left to its
   * next server, as by {@link quiesce}. Kernels before 7.0 see mounts and the like, and no mere
   * openers.
   */
  [Symbol.asyncDispose](): Promise<void> {
    const outlives = this.#info.recovery !== undefined && !this.#asked.has('close');
    return this.#ask(outlives ? 'release' : 'close');
  }

  /** @internal Ends the service as the end of the program would. */
  part(): Promise<void> {
    return this.#ask('part');
  }

  /** What `JSON.stringify()` writes: the device as it is now, without its counters. */
  toJSON(): DeviceInfo & { readonly buffers: Buffering } {
    return { ...this.#info, buffers: this.#buffers };
  }

  /** @internal Tells what went wrong with a request. */
  warn(warning: UblkError): void {
    if (this.#tell('warning', warning) || this.#printed.has(warning.code)) return;
    this.#printed.add(warning.code);
    process.emitWarning(toProcessWarning(warning));
  }

  /** Ends the device in one of the ways, once however often that is asked for. */
  #ask(way: Way): Promise<void> {
    const asked = this.#asked.get(way) ?? this.#leave(way);
    this.#asked.set(way, asked);
    return asked;
  }

  async #leave(way: Way): Promise<void> {
    if (this.#ended) return;
    debug('%s: %s', this.path, way);
    this.#waiting += 1;
    this.#alive.ref();
    try {
      unwrap(await this.#native[way]());
      await this.#over;
    } catch (error) {
      // The addon may throw at once, before `#asked` has the promise.
      await undefined;
      this.#asked.delete(way);
      debug('%s: %s failed: %O', this.path, way, error);
      throw error;
    } finally {
      this.#waiting -= 1;
      if (this.#waiting === 0 && !this.#kept) this.#alive.unref();
    }
  }

  /** Takes note of the end; the error that it failed of. */
  #end(end: NativeEnd): UblkError | undefined {
    const error = end.failure && toError(end.failure);
    debug('%s: %s', this.path, end.reason, error ?? '');
    this.#ended = true;
    const { serverPid: _gone, ...info } = this.#info;
    this.#info = { ...info, state: stateAfter(end, info.recovery) };
    clearInterval(this.#alive);
    const isHeard = this.#waiting > 0 || (error && this.#tell('error', error));
    if (isHeard) this.#closed.catch(() => {});
    this.#tell('close');
    announceEnd({ device: this, reason: end.reason, ...(error ? { error } : {}) });
    return error;
  }

  /**
   * Calls the listeners, if there are any. An error that one of them throws is the program's, as
   * an uncaught exception, and holds up nothing here.
   */
  #tell<Name extends keyof DeviceEvents>(name: Name, ...args: DeviceEvents[Name]): boolean {
    if (this.listenerCount(name) === 0) return false;
    try {
      (this as EventEmitter).emit(name, ...args);
    } catch (thrown) {
      process.nextTick(() => {
        throw thrown;
      });
    }
    return true;
  }
}

function stateAfter({ reason }: NativeEnd, recovery: DeviceInfo['recovery']): DeviceInfo['state'] {
  if (reason !== 'quiesced') return 'dead';
  return recovery === 'fail' ? 'fail-io' : 'quiesced';
}

// What `console.log()` prints.
Object.defineProperty(Device.prototype, inspect.custom, {
  value(this: Device, _depth: number, options: InspectOptions) {
    return `Device ${inspect(this.toJSON(), options)}`;
  },
});

function sum(queues: readonly Counters[]): Counters {
  const total: Record<string, number> = {};
  for (const queue of queues) {
    for (const [name, count] of Object.entries(queue)) total[name] = (total[name] ?? 0) + count;
  }
  return total as unknown as Counters;
}
