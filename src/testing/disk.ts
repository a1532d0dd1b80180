import { constants } from 'node:os';
import { setImmediate } from 'node:timers';

import { checkKeys } from '../check.ts';
import { Device } from '../device.ts';
import { errnoName } from '../errno.ts';
import { invalid, toError, UblkError, UblkErrorCode, unwrap } from '../errors.ts';
import type { HandlerModule } from '../handler/module.ts';
import { serve, serverOf } from '../handler/serve.ts';
import type { HandlerServer } from '../handler/server.ts';
import type { Handler } from '../handler/types.ts';
import {
  native,
  type NativeDevice,
  type NativeDeviceOptions as Options,
  type NativeDiskOperation,
  type NativeEnd,
  type NativeSimulation,
  type NativeSimulationOptions,
} from '../native.ts';
import type { Target } from '../targets/index.ts';
import { toNativeFaults, type Faults, type InjectedFaults } from './faults.ts';

/** Options of {@link SimulatedDisk.write}. */
export interface WriteOptions {
  /**
   * Whether the promise resolves only after the data is durable (FUA).
   * @default false
   */
  readonly fua?: boolean | undefined;
}

/** A pending operation. */
interface Asked {
  readonly operation: NativeDiskOperation;
  readonly resolve: (data: Buffer) => void;
  readonly reject: (error: UblkError) => void;
}

const EMPTY = Buffer.alloc(0);
/** The longest piece of an operation without data; operations with data must be shorter. */
const MAX_LENGTH = 2 ** 30;

// Saved: a test with fake timers must not stop the disk.
const later = setImmediate;

/**
 * A disk served by {@link simulate}, with the interface of a block device opened with `O_DIRECT`:
 * offsets and lengths in bytes, multiples of {@link logicalBlockSize}, within {@link size}. Operations
 * started in the same turn of the event loop are in flight together and run in any order.
 *
 * Operations reject with a {@link UblkError}: `ERR_UBLK_INVALID_ARGUMENT`; `ERR_UBLK_IO` with the
 * device's `errno`; `ERR_UBLK_CLOSED`.
 */
export class SimulatedDisk {
  readonly #native: NativeSimulation;
  readonly #target: Target | Handler | HandlerModule;
  readonly #options: Options;
  #device!: Device;
  #asked: Asked[] = [];
  #closing: Promise<void> | undefined;

  private constructor(
    native: NativeSimulation,
    target: Target | Handler | HandlerModule,
    options: Options,
  ) {
    this.#native = native;
    this.#target = target;
    this.#options = options;
  }

  /** @internal */
  static async serve(
    target: Target | Handler | HandlerModule,
    options: Options,
    simulation: NativeSimulationOptions,
  ): Promise<SimulatedDisk> {
    const server = await serverOf(target, options);
    let simulated: NativeSimulation;
    try {
      simulated = unwrap(native().simulate(server?.request ?? options, simulation));
    } catch (error) {
      await server?.release();
      throw error;
    }
    const disk = new SimulatedDisk(simulated, target, options);
    await disk.#open(server, (target, onEnd) => simulated.serve(target, onEnd));
    return disk;
  }

  /** The present device, with its counters; each power cut starts another device. */
  get device(): Device {
    return this.#device;
  }

  /** The size in bytes. */
  get size(): number {
    return this.#device.size;
  }

  /** The unit of addressing in bytes. */
  get logicalBlockSize(): number {
    return this.#device.logicalBlockSize;
  }

  /** Reads a range. */
  async read(offset: number, length: number): Promise<Buffer> {
    this.#check('read', offset, length);
    return this.#ask({ kind: 'read', offset, length, fua: false });
  }

  /** Writes all of `data`, which must not change before the promise settles. */
  async write(offset: number, data: Uint8Array, options: WriteOptions = {}): Promise<void> {
    checkKeys(options, 'write()', ['fua']);
    if (!(data instanceof Uint8Array)) throw invalid('data is no Buffer and no Uint8Array');
    this.#check('write', offset, data.length);
    const { fua = false } = options;
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    await this.#ask({ kind: 'write', offset, length: data.length, data: bytes, fua });
  }

  /** Makes all writes with resolved promises durable. */
  async flush(): Promise<void> {
    await this.#ask({ kind: 'flush', offset: 0, length: 0, fua: false });
  }

  /** Discards a range. Later reads of the range depend on the target. */
  async discard(offset: number, length: number): Promise<void> {
    await this.#askInPieces('discard', offset, length);
  }

  /** Makes a range read as zeros. */
  async writeZeroes(offset: number, length: number): Promise<void> {
    await this.#askInPieces('writeZeroes', offset, length);
  }

  /**
   * Cuts the power: operations in flight reject, at a point chosen by the seed. Each sector without a
   * sync keeps the old or the new contents. Resolves after the simulation has opened the target again.
   * Data of a target in this process's memory survives.
   *
   * @throws {UblkError} The errors of {@link simulate}; the disk is then closed.
   */
  async powerCut(): Promise<void> {
    this.#checkOpen();
    this.#begin(true);
    try {
      const server = await serverOf(this.#target, this.#options);
      await this.#open(server, (target, onEnd) => this.#native.powerCycle(target, onEnd));
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  /** Changes the faults from now on; faults left out return to their defaults. */
  setFaults(faults: Faults): void {
    this.#native.setFaults(toNativeFaults(faults));
  }

  /** The faults injected so far. */
  get injected(): InjectedFaults {
    return this.#native.injected();
  }

  /**
   * Ends the operations in flight and removes the device; the simulation writes unsynced data to the
   * target's files.
   *
   * @throws {UblkError} `ERR_UBLK_BAD_BACKEND` for a file that refuses writes;
   * `ERR_UBLK_INTERNAL` when this package has broken a rule of the ublk protocol.
   */
  close(): Promise<void> {
    this.#begin(false);
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    unwrap(await this.#native.close());
    await this.#device.closed;
  }

  async #open(server: HandlerServer | undefined, start: NativeSimulation['serve']): Promise<void> {
    let onEnd!: (end: NativeEnd) => void;
    const ended = new Promise<NativeEnd>((resolve) => (onEnd = resolve));
    const { target } = server?.request ?? this.#options;
    const create = async () => unwrap(await start(target, onEnd));
    // The kernel may have another device at the path of this number.
    const make = (native: NativeDevice) => new Device(native, ended, native.info().path);
    this.#device = await serve(server, ended, create, make);
  }

  #askInPieces(kind: 'discard' | 'writeZeroes', offset: number, length: number): Promise<unknown> {
    const pieces = [];
    this.#check(kind, offset, length);
    for (let at = 0; at < length; at += MAX_LENGTH) {
      const piece = Math.min(MAX_LENGTH, length - at);
      pieces.push(this.#ask({ kind, offset: offset + at, length: piece, fua: false }));
    }
    return Promise.all(pieces);
  }

  #ask(operation: NativeDiskOperation): Promise<Buffer> {
    this.#checkOpen();
    const changes = operation.kind !== 'read' && operation.kind !== 'flush';
    if (changes && this.#device.readOnly) throw failure(operation, constants.errno.EPERM);
    return new Promise((resolve, reject) => {
      // All operations of a turn of the event loop start together, so that the seed decides the order
      // and not the threads.
      if (this.#asked.length === 0) later(() => this.#begin(false));
      this.#asked.push({ operation, resolve, reject });
    });
  }

  #begin(cutPower: boolean): void {
    const asked = this.#asked;
    this.#asked = [];
    if (asked.length === 0 && !cutPower) return;
    const operations = asked.map((one) => one.operation);
    const { failure: refused } = this.#native.begin(operations, cutPower, (ended) => {
      for (const { place, data, errno } of ended) {
        const { operation, resolve, reject } = asked[place]!;
        if (errno === 0) resolve(operation.kind === 'read' ? data : EMPTY);
        else reject(failure(operation, errno));
      }
    });
    if (!refused) return;
    // No thread that waits for them, for example.
    const error = toError(refused);
    for (const { reject } of asked) reject(error);
    if (cutPower) throw error;
  }

  #check(what: string, offset: unknown, length: unknown): void {
    const { logicalBlockSize: block, size } = this;
    const hasData = what === 'read' || what === 'write';
    for (const [name, value] of Object.entries({ offset, length })) {
      if (!Number.isInteger(value) || (value as number) < 0 || (value as number) % block !== 0) {
        const is = `the ${name} of a ${what} is ${String(value)}`;
        throw invalid(`${is}; it must be a multiple of the disk's logicalBlockSize, ${block}`);
      }
    }
    if ((offset as number) + (length as number) > size) {
      const range = `${String(length)} bytes at ${String(offset)}`;
      throw invalid(`a ${what} of ${range} is beyond the end of the disk, which has ${size}`);
    }
    if (hasData && (length as number) > MAX_LENGTH) {
      throw invalid(`the length of a ${what} is ${String(length)}; it can be 1 GiB at most`);
    }
  }

  #checkOpen(): void {
    if (this.#closing) throw new UblkError(UblkErrorCode.Closed, 'the simulated disk is closed');
  }
}

function failure({ kind, offset, length }: NativeDiskOperation, errno: number): UblkError {
  const what = kind === 'flush' ? 'a flush' : `a ${kind} of ${length} bytes at ${offset}`;
  const message = `the disk failed ${what}: ${errnoName(errno)}`;
  return new UblkError(UblkErrorCode.Io, message, { errno, syscall: kind });
}
