import { invalid, UblkError, UblkErrorCode } from '../errors.ts';
import { OPS, type RequestOp } from '../request-op.ts';
import { Coverage } from './coverage.ts';
import * as layout from './layout.ts';

// V8 looks up an import at each use, but treats a module's own `const` as a constant.
const {
  FLAG_FUA,
  FLAG_NO_UNMAP,
  REQUEST_GENERATION,
  REQUEST_HEAD,
  REQUEST_LENGTH,
  REQUEST_OFFSET_HIGH,
  REQUEST_OFFSET_LOW,
} = layout;

/** Operations other than plain I/O on bytes of the device. */
export const ZONE_APPEND = 13;
export const REPORT_ZONES = 18;

function hasData(op: number): boolean {
  return op <= 1 || op === ZONE_APPEND || op === REPORT_ZONES;
}

/** The queue's services for a request. */
export interface RequestOwner {
  /** The memory of a tag's data; undefined where the data never comes to JavaScript. */
  buffer(tag: number): ArrayBuffer | null;
  /** Runs I/O of a backend on a request's data. */
  step(request: HandlerRequest, step: Step): Promise<void>;
}

/** I/O of a backend on a request's data. */
export interface Step {
  readonly op: RequestOp;
  readonly backend: string;
  readonly offset: number;
  readonly length: number;
  readonly at: number;
}

/**
 * A request of the device's clients. Do not keep the object or the data after the answer: the next
 * request uses the same object and the same memory.
 */
export class HandlerRequest<Name extends string = string> {
  /** The number of the queue. */
  readonly queue: number;
  /** The tag: unique within the queue while the request is in flight. */
  readonly tag: number;
  readonly #owner: RequestOwner;
  #memory: ArrayBuffer | null | undefined;
  #data: Buffer<ArrayBuffer> | undefined;
  #op = 0;
  #flags = 0;
  #offset = 0;
  #length = 0;
  #seen = false;
  #moved: Coverage | undefined;

  /** @internal The generation: distinguishes successive requests of the tag. */
  generation = 0;
  /** @internal Whether the request waits for an answer. */
  isOpen = false;
  /** @internal The number of pending steps. */
  steps = 0;

  /** @internal `before`: the previous object of the tag, whose memory this request takes over. */
  constructor(owner: RequestOwner, queue: number, tag: number, before?: HandlerRequest) {
    this.#owner = owner;
    this.queue = queue;
    this.tag = tag;
    if (before !== undefined) {
      this.#memory = before.#memory;
      this.#data = before.#data;
    }
  }

  /** @internal Loads the next request of the ring. */
  become(words: Uint32Array, at: number): void {
    const head = words[at + REQUEST_HEAD]!;
    this.#op = (head >>> 16) & 0xff;
    this.#flags = head >>> 24;
    this.#length = words[at + REQUEST_LENGTH]!;
    this.#offset = words[at + REQUEST_OFFSET_HIGH]! * 2 ** 32 + words[at + REQUEST_OFFSET_LOW]!;
    this.generation = words[at + REQUEST_GENERATION]!;
    this.isOpen = true;
    this.#seen = false;
    this.#moved = undefined;
  }

  /** The operation. */
  get op(): RequestOp {
    return OPS[this.#op]!;
  }

  /** @internal The kernel's number of {@link op}. */
  get opNumber(): number {
    return this.#op;
  }

  /** The start on the device, in bytes. */
  get offset(): number {
    return this.#offset;
  }

  /** In bytes; 0 for a flush; for a report, 64 bytes for each requested zone. */
  get length(): number {
    return this.#length;
  }

  /** Whether a write must be durable before the answer; see {@link Handler.fua}. */
  get fua(): boolean {
    return (this.#flags & FLAG_FUA) !== 0;
  }

  /** Whether a range of zeros must keep its space allocated. */
  get noUnmap(): boolean {
    return (this.#flags & FLAG_NO_UNMAP) !== 0;
  }

  /**
   * The data, {@link length} bytes: a read fills all bytes, a write stores all bytes. Later requests use
   * the same memory: copy bytes that you keep.
   *
   * @throws {UblkError} `ERR_UBLK_UNSUPPORTED` where the data never comes to JavaScript: with
   * `buffers` other than `'copy'` and `'user-copy'`, and for requests without data.
   */
  get data(): Buffer<ArrayBuffer> {
    const data =
      this.#data?.length === this.#length && hasData(this.#op) ? this.#data : this.#view();
    this.#seen = true;
    return data;
  }

  #view(): Buffer<ArrayBuffer> {
    this.#memory ??= this.#owner.buffer(this.tag);
    if (this.#memory === null || !hasData(this.#op)) {
      throw new UblkError(UblkErrorCode.Unsupported, "the request's data is not in JavaScript", {
        hint: "create the device with buffers: 'copy', or use steps: request.read('backend', 0)",
      });
    }
    this.#data = Buffer.from(this.#memory, 0, this.#length);
    return this.#data;
  }

  /** @internal Records a successful step. */
  stepEnded({ op, at, length }: Step): void {
    if (op === this.op) (this.#moved ??= new Coverage()).add(at, length);
  }

  /**
   * @internal Whether an empty answer may complete the request: the request has no data, the method has
   * had the data in its hands, or steps have moved all data.
   */
  get canBeDone(): boolean {
    return this.#seen || !hasData(this.#op) || this.isMoved;
  }

  /** @internal Whether steps have moved all data. */
  get isMoved(): boolean {
    return this.#moved?.reaches(this.#length) ?? false;
  }

  /** @internal Whether JavaScript still owns the memory. */
  get isIntact(): boolean {
    return this.#data === undefined || this.#length === 0 || this.#data.length !== 0;
  }

  /**
   * Reads from a backend into the data of a read request, also where the data never comes to JavaScript.
   * A read into the data of a write request fails with `EINVAL` in every buffer mode. Steps started in the
   * same turn of the event loop run in parallel, and each settles with its own result.
   *
   * @param backend The name among {@link Handler.backends}.
   * @param offset The place on the backend, in bytes.
   * @param length In bytes; by default the rest of the data from `at` on.
   * @param at The place in the data, in bytes.
   * @throws {IoError} (as a rejection) The backend's error.
   * @throws {UblkError} (as a rejection) `ERR_UBLK_LATE_ANSWER`: the request has been answered, or
   * has timed out; `ERR_UBLK_INVALID_ARGUMENT`.
   */
  read(backend: Name, offset: number, length?: number, at = 0): Promise<void> {
    return this.#step('read', backend, offset, length ?? this.#length - at, at);
  }

  /**
   * Writes the data of a write request, or a part of the data, to a backend; fails with `EINVAL` for a
   * read request. Parameters and errors as in {@link read}.
   */
  write(backend: Name, offset: number, length?: number, at = 0): Promise<void> {
    return this.#step('write', backend, offset, length ?? this.#length - at, at);
  }

  /** Makes all completed writes to a backend durable. */
  flush(backend: Name): Promise<void> {
    return this.#step('flush', backend, 0, 0, 0);
  }

  /** Discards a range of a backend. */
  discard(backend: Name, offset: number, length: number): Promise<void> {
    return this.#step('discard', backend, offset, length, 0);
  }

  /** Makes a range of a backend read as zeros. */
  writeZeroes(backend: Name, offset: number, length: number): Promise<void> {
    return this.#step('writeZeroes', backend, offset, length, 0);
  }

  #step(op: RequestOp, backend: string, offset: number, length: number, at: number): Promise<void> {
    return this.#owner.step(this as unknown as HandlerRequest, { op, backend, offset, length, at });
  }
}

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` unless `value` is a valid place or number of bytes. */
export function checkBytes(value: unknown, name: string): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw invalid(`${name} is ${String(value)}; it must be a whole number of bytes`);
}
