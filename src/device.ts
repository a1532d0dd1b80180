import { EventEmitter } from 'node:events';
import { inspect, type InspectOptions } from 'node:util';

import { announce, announceEnd } from './channels.ts';
import { checkAbsolutePath, checkChildren, checkKeys } from './check.ts';
import { watchCompletions, type CompletionBatch, type CompletionsOptions } from './completions.ts';
import { debug } from './debug.ts';
import type { DeviceEvents, EndReason } from './device-events.ts';
import { readStats } from './device-stats.ts';
import { toProcessWarning, UblkError, UblkErrorCode, unwrap } from './errors.ts';
import type { Buffering, DeviceInfo, DeviceStats } from './info.ts';
import { type SharedMemory, shareMemory, type ShareOptions } from './memory.ts';
import { Lifetime, stateAfter } from './lifetime.ts';
import type { NativeDevice, NativeEnd } from './native.ts';
import { Merges, type DeviceFlattenOptions, type MergeOptions } from './merges.ts';
import type { OverlayMerged } from './overlay-merges.ts';
import type { OverlaySnapshot, SnapshotOptions } from './overlays.ts';
import { parseSize, type Size } from './size.ts';
import { warnOfSlowEnd } from './slow-end.ts';
import { tell } from './tell.ts';
import { toNativeThrottle, type ThrottleOptions } from './throttle.ts';
import { describeStall, lookOften, type Stalled, type WatchdogOptions } from './watchdog.ts';

export type { DeviceEvents, EndReason } from './device-events.ts';

/**
 * An open block device, made by {@link createDevice}. An open device keeps the process alive (see
 * {@link Device.unref}).
 *
 * At the end of the program, or of the worker with the device, ublk leaves a device with `recovery`
 * to the next server ({@link recoverDevice}) and closes any other device. Ends of a program are an
 * uncaught exception, `process.exit()`, and an empty event loop. A signal without a listener (Ctrl-C,
 * SIGTERM) ends a program of Node.js at once and leaves a device without `recovery` behind, dead: see
 * {@link closeOnSignals}. `ublk delete` removes a dead device.
 *
 * A program with a handler must never wait for I/O on the device with a synchronous call
 * (`execSync('mount …')`): the waiting thread would have to answer. Threads in Rust serve the targets
 * of {@link targets}, so synchronous calls are safe there.
 */
export class Device extends EventEmitter<DeviceEvents> {
  readonly #native: NativeDevice;
  #info: DeviceInfo;
  #name: string | undefined;
  readonly #buffers: Buffering;
  readonly #life: Lifetime;
  readonly #printed = new Set<string>();
  readonly #merges: Merges;
  #stalled = 0;

  /** The place of clients, where the device is no block device of this machine. */
  readonly #place: string | undefined;

  /** @internal `place` is where clients find a device that is no block device of this machine. */
  constructor(native: NativeDevice, ended: Promise<NativeEnd>, place?: string) {
    super();
    this.#native = native;
    this.#merges = new Merges(native, (warning) => this.warn(warning));
    this.#place = place;
    this.#info = native.info();
    const { mode, userCopy, shared } = native.buffers();
    this.#buffers = Object.freeze({
      mode,
      exchange: native.exchangeMode(),
      ...(userCopy && { userCopy }),
      ...(shared && { shared }),
    });
    this.#life = new Lifetime(native, ended, {
      path: this.path,
      watchEnd: () => this.#watchEnd(),
      // A merge has the target, which closes its files in good order when nobody has it.
      leaveTarget: () => this.#merges.end(),
      over: (...end) => this.#end(...end),
    });
    announce(this);
    debug('%s: served with %O', this.path, this);
  }

  /** The number N of `/dev/ublkbN`. */
  get id(): number {
    return this.#info.id;
  }

  /** The name from the options, or from the record of the last server. */
  get name(): string | undefined {
    return this.#name;
  }

  /** The block device, `/dev/ublkbN`; clients can open the device until {@link close}. */
  get path(): string {
    return this.#place ?? this.#info.path;
  }

  /** The size in bytes; see {@link resize}. */
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

  /** The number of hardware queues granted by the kernel. */
  get queues(): number {
    return this.#info.queues;
  }

  /** The number of requests of a queue in flight at once, granted by the kernel. */
  get depth(): number {
    return this.#info.depth;
  }

  /** The largest request in bytes, granted by the kernel. */
  get maxIoBytes(): number {
    return this.#info.maxIoBytes;
  }

  /** The buffer mode and the exchange, as agreed with the kernel. */
  get buffers(): Buffering {
    return this.#buffers;
  }

  /** The features in force, by the kernel's names without `UBLK_F_`. */
  get features(): readonly string[] {
    return this.#info.features;
  }

  /**
   * Settles at the end of the service, also when another program ended the service: resolves with the
   * reason, or rejects with a {@link UblkError} when the device failed.
   *
   * A rejection that the program does not handle ends the process, as any unhandled rejection does, unless
   * the device has an `'error'` listener.
   */
  get closed(): Promise<EndReason> {
    return this.#life.closed;
  }

  /**
   * The counters so far; after the end, the final counters.
   *
   * @example
   * console.log(device.stats().total.zeroCopyBytes);
   */
  stats(): DeviceStats {
    return readStats(this.#native, this.#stalled);
  }

  /**
   * The completions of all requests from now on, in batches. A slow reader misses completions, which
   * are dropped and counted; the device never waits for a reader. The iteration ends with the device.
   *
   * A device without readers pays nothing. A watched device reads the clock twice for each request,
   * and a lone request takes another system call.
   *
   * @example
   * for await (const { completions } of device.completions()) {
   *   for (const { op, offset, length, latency } of completions) audit(op, offset, length, latency);
   * }
   *
   * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
   */
  completions(options: CompletionsOptions = {}): AsyncIterableIterator<CompletionBatch> {
    return watchCompletions(this.#native, this.#life.closed, options);
  }

  /**
   * Lets clients share memory: a whole file in memory, for example of a tmpfs or hugetlbfs, or a
   * memfd of another process (`/proc/PID/fd/N`). The kernel then serves direct I/O without a copy, in
   * every buffer mode, when the pages of the request follow each other in the file. The pages stay
   * in memory until the memory or the device is closed.
   *
   * The kernel waits for all requests in flight first; new requests wait for the kernel.
   *
   * @example
   * const device = await createDevice({ target, buffers: ['shared', 'copy'] });
   * await using memory = await device.share('/dev/hugepages/clients');
   *
   * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` without `shared` among the device's buffers, or
   * for a file outside memory, a fraction of a page, or over 4 GiB.
   */
  async share(path: string | URL, options: ShareOptions = {}): Promise<SharedMemory> {
    return await shareMemory(this.#native, path, options);
  }

  /** Lets the process end with an open device; {@link Device} describes the device's fate. */
  unref(): this {
    this.#life.unref();
    return this;
  }

  /** Reverts {@link unref}. */
  ref(): this {
    this.#life.ref();
    return this;
  }

  /**
   * Changes the size of the device in use (Linux 6.16) to a multiple of the logical block size. The
   * backing store must hold the new size: grow a file before the device, and shrink a file after the
   * device.
   *
   * @example
   * await truncate('disk.img', 2 ** 31);
   * await device.resize('2GiB');
   *
   * @throws {UblkError} `ERR_UBLK_BAD_BACKEND` when the backing store holds less;
   * `ERR_UBLK_INVALID_ARGUMENT`; `ERR_UBLK_UNSUPPORTED` before Linux 6.16, or when the target's
   * size is fixed.
   */
  async resize(size: Size): Promise<void> {
    this.#info = unwrap(await this.#native.resize(parseSize(size, 'size')));
  }

  /**
   * Limits the requests and bytes per second of the device from now on, in place of all earlier limits;
   * without an argument, nothing is limited. What is over a limit waits in the server, in the order of its
   * arrival; a change reaches waiting requests within a tenth of a second. A device that closes, or is left
   * to its next server, waits for no limit.
   *
   * @example
   * device.throttle({ iops: 1000, write: { bytesPerSecond: '20MiB' } });
   *
   * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`; `ERR_UBLK_UNSUPPORTED` for an `unprivileged` device;
   * `ERR_UBLK_CLOSED` when the device has ended.
   */
  throttle(limits: ThrottleOptions = {}): void {
    unwrap(this.#native.throttle(toNativeThrottle(limits)));
  }

  /**
   * Freezes the contents of an overlay's disk ({@link targets.overlay}) while clients use the disk, and
   * goes on in a new layer of the same name. ublk copies nothing. All that was answered before the call is
   * in the snapshot, and durable; nothing that a client begins after the call is. Requests other than
   * reads wait meanwhile, for the requests under way and a few syncs; none fails. Flush a file system
   * first (`fsfreeze`, `sync`), unless a journal's recovery is fine.
   *
   * A server adds up to 64 layers to a device; {@link flatten} makes room for more.
   *
   * @example
   * const { path, generation } = await device.snapshot();
   * await forkOverlay(path, ['vm2.layer']);
   *
   * @throws {UblkError} and leaves the disk as it was: `ERR_UBLK_UNSUPPORTED` for other targets, at 255
   * layers, and where the file system cannot exchange two names (ext4, xfs, btrfs and tmpfs can);
   * `ERR_UBLK_BAD_BACKEND` where `path` exists; `ERR_UBLK_INVALID_ARGUMENT` for a file in another folder;
   * `ERR_UBLK_RESOURCES` on a full file system, and without a place for another layer; `ERR_UBLK_TIMEOUT`
   * when requests do not end within `timeoutMs`; `ERR_UBLK_BUSY` beside another snapshot; `ERR_UBLK_CLOSED`.
   */
  async snapshot(options: SnapshotOptions = {}): Promise<OverlaySnapshot> {
    return await this.#snapshot([], options, 'snapshot()');
  }

  /**
   * Forks an overlay's disk while clients use the disk: takes a {@link snapshot}, and makes new disks that
   * begin with the same contents. The device and the children go on independently, each with its own
   * writes.
   *
   * @example
   * await device.fork(['vm2.layer', 'vm3.layer']);
   * const vm2 = await createDevice({ target: targets.overlay(targets.file('base.img', { readOnly: true }), 'vm2.layer') });
   *
   * @param children The new files, in the folder of the disk's file.
   * @throws {UblkError} As {@link snapshot}, before anything is made: `ERR_UBLK_BAD_BACKEND` also where a
   * child exists.
   */
  async fork(
    children: readonly (string | URL)[],
    options: SnapshotOptions = {},
  ): Promise<OverlaySnapshot> {
    const files = checkChildren(children);
    return await this.#snapshot(files, options, 'fork()');
  }

  /**
   * Merges the frozen layers below an overlay's disk into one while clients use the disk, so that the disk
   * stands on one layer again. ublk copies what these layers hold into a new file, which takes the name and
   * the identity of the highest one: disks of other servers that stand on that layer go on, too. A lower
   * layer on which other layers stand stays as it is, with those below: a merge would copy what disks share.
   * No request waits for the copying. Layers that snapshots freeze meanwhile stay as they are. At any moment,
   * whatever fails, the next server finds the same disk; a merge that was killed or aborted begins anew with
   * the next call. With `prune`, merged files on which no other layer stands are removed.
   *
   * @example
   * const { removed } = await device.flatten({ prune: true, bytesPerSecond: '100MiB' });
   *
   * @throws {UblkError} `ERR_UBLK_UNSUPPORTED` for other targets; `ERR_UBLK_BUSY` beside another merge of the
   * disk; `ERR_UBLK_BAD_BACKEND` for a layer that is damaged or another one; `ERR_UBLK_NO_BACKEND` where a
   * layer is missing; `ERR_UBLK_RESOURCES` on a full file system; `ERR_UBLK_CLOSED`.
   */
  async flatten(options: DeviceFlattenOptions = {}): Promise<OverlayMerged> {
    return await this.#merges.flatten(options);
  }

  async #snapshot(
    children: readonly string[],
    options: SnapshotOptions,
    caller: string,
  ): Promise<OverlaySnapshot> {
    checkKeys(options, `the options of ${caller}`, ['path']);
    const { path } = options;
    const file = path === undefined ? undefined : checkAbsolutePath(path, 'path');
    const taken = unwrap(await this.#native.snapshot(children, file));
    this.#merges.look();
    return taken;
  }

  /**
   * Leaves the device to another server, for an upgrade of this server: requests in flight end, and
   * later requests wait for {@link recoverDevice} or fail, according to the option `recovery`. The
   * device stays, mounted or not. After an error the service continues and keeps the process alive,
   * unless the device has ended; the next call tries again.
   *
   * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for a device without `recovery`;
   * `ERR_UBLK_UNSUPPORTED` before Linux 6.16, where only the end of the server's process hands over,
   * and while the kernel does not count requests (`queue/iostats` set to 0);
   * `ERR_UBLK_TIMEOUT` when requests in flight do not end: the server leaves the device after the
   * last request, and the device then ends as `quiesced`; `ERR_UBLK_CLOSED` when the device has ended
   * in another way, also by a concurrent {@link close}.
   */
  async quiesce(): Promise<void> {
    if (this.#life.hasAsked('close')) await this.close();
    await this.#life.ask('quiesce');
    const { reason } = await this.#life.over;
    if (reason === 'quiesced') return;
    throw new UblkError(UblkErrorCode.Closed, `${this.path} has ended and cannot be recovered`);
  }

  /**
   * Stops serving and removes the device, also a device with `recovery`. Requests in flight end
   * first, and the kernel writes back what clients have left in the page cache, as long as requests end; a
   * `warning` after 3 s names the clients. Later calls return the same promise. A client with the device
   * open or mounted sees errors afterwards. After an error the service continues and keeps the process
   * alive, unless the device has ended; the next call tries again.
   *
   * @throws {UblkError} `ERR_UBLK_TIMEOUT`, `ERR_UBLK_BUSY` when the kernel does not release the
   * device in time.
   */
  close(): Promise<void> {
    return this.#life.ask('close');
  }

  /**
   * Ends the device at the end of the scope of `await using`, also after an exception:
   * {@link close}, or {@link quiesce} for a device with `recovery` in use by a client. Kernels
   * before 7.0 see mounts and stacked devices, but no processes with the device open.
   */
  [Symbol.asyncDispose](): Promise<void> {
    const outlives = this.#info.recovery !== undefined && !this.#life.hasAsked('close');
    return this.#life.ask(outlives ? 'release' : 'close');
  }

  /** @internal Sets the name. */
  named(name: string | undefined): void {
    this.#name = name;
  }

  /** @internal Ends the service as at the end of the program. */
  part(): Promise<void> {
    return this.#life.ask('part');
  }

  /** The device's present state for `JSON.stringify()`, without the counters. */
  toJSON(): DeviceInfo & { readonly buffers: Buffering } {
    return { ...this.#info, path: this.path, buffers: this.#buffers };
  }

  /** @internal Reports a failed request. */
  warn(warning: UblkError): void {
    // A worker's message may arrive after the end, and `close` is the last event.
    const isHeard = !this.#life.hasEnded && tell(this, 'warning', warning);
    if (isHeard || this.#printed.has(warning.code)) return;
    this.#printed.add(warning.code);
    process.emitWarning(toProcessWarning(warning));
  }

  /** @internal Measures latencies until the end: {@link DeviceStats.latencies}. */
  measure(): void {
    this.#native.measure();
  }

  /** @internal Reports stalls until the end. */
  guard(options: WatchdogOptions): void {
    const report = (stalled: Stalled): void => {
      this.#stalled += 1;
      const isHeard = tell(this, 'stalled', stalled);
      const error = new UblkError(UblkErrorCode.Timeout, stalled.message);
      if (!isHeard) process.emitWarning(error);
      if (options.action !== 'quiesce' || this.#life.hasAsked('quiesce')) return;
      this.quiesce().catch((failed: UblkError) => this.warn(failed));
    };
    const looks = lookOften(this.#native, options, (one) => report(describeStall(this.path, one)));
    void this.#life.over.then(() => looks[Symbol.dispose]());
  }

  /** @internal Merges layers past these limits, until the end. */
  keepMerged(options: MergeOptions): void {
    this.#merges.keep(options);
  }

  /** The users of a block device are known, and those of exports and simulated disks are not. */
  #watchEnd(): Disposable | undefined {
    if (this.#place !== undefined) return undefined;
    return warnOfSlowEnd(this.#info, (warning) => this.warn(warning));
  }

  /** Records the end; returns whether the error of a failed device is reported. */
  #end(end: NativeEnd, error: UblkError | undefined, isReported: boolean): boolean {
    void this.#merges.end();
    const { serverPid: _gone, ...info } = this.#info;
    this.#info = { ...info, state: stateAfter(end, info.recovery) };
    const isHeard = isReported || (error !== undefined && tell(this, 'error', error));
    tell(this, 'close');
    announceEnd({ device: this, reason: end.reason, ...(error ? { error } : {}) });
    return isHeard;
  }
}

// The text for `console.log()`.
Object.defineProperty(Device.prototype, inspect.custom, {
  value(this: Device, _depth: number, options: InspectOptions) {
    return `${this.constructor.name} ${inspect(this.toJSON(), options)}`;
  },
});
