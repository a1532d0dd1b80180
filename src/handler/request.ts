import { invalid, UblkError, UblkErrorCode } from '../errors.ts';
import { OPS, type RequestOp } from '../request-op.ts';
import { Coverage } from './coverage.ts';
import * as layout from './layout.ts';

// To V8 an import is looked up at each use, and a module's own `const` is a constant.
const {
  FLAG_FUA,
  FLAG_NO_UNMAP,
  REQUEST_GENERATION,
  REQUEST_HEAD,
  REQUEST_LENGTH,
  REQUEST_OFFSET_HIGH,
  REQUEST_OFFSET_LOW,
} = layout;

/** Operations that are more than a request for bytes of the device. */
export const ZONE_APPEND = 13;
export const REPORT_ZONES = 18;

function hasData(op: number): boolean {
  return op <= 1 || op === ZONE_APPEND || op === REPORT_ZONES;
}

/** What a request needs of whoever serves its queue. */
export interface RequestOwner {
  /** The memory of a tag's data, or nothing where the data never comes to JavaScript. */
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
 * A request of the device's clients. It is yours until it is answered: the same object, and the
 * same memory, then serve the next one.
 */
export class HandlerRequest<Name extends string = string> {
  /** The queue that it came by. */
  readonly queue: number;
  /** Its number among the requests of its queue that are under way. */
  readonly tag: number;
  readonly #owner: RequestOwner;
  #memory: ArrayBuffer | null | undefined;
  #data: Buffer<ArrayBuffer> | undefined;
  #op = 0;
  #flags = 0;
  #offset = 0;
  #length = 0;
  #moved: Coverage | undefined;

  /** @internal Which of the tag's requests it is. */
  generation = 0;
  /** @internal It has not been answered. */
  isOpen = false;
  /** @internal Steps that were asked for and have not ended. */
  steps = 0;

  /** @internal `before`: whose memory it takes over. */
  constructor(owner: RequestOwner, queue: number, tag: number, before?: HandlerRequest) {
    this.#owner = owner;
    this.queue = queue;
    this.tag = tag;
    if (before !== undefined) {
      this.#memory = before.#memory;
      this.#data = before.#data;
    }
  }

  /** @internal Becomes the request in the ring. */
  become(words: Uint32Array, at: number): void {
    const head = words[at + REQUEST_HEAD]!;
    this.#op = (head >>> 16) & 0xff;
    this.#flags = head >>> 24;
    this.#length = words[at + REQUEST_LENGTH]!;
    this.#offset = words[at + REQUEST_OFFSET_HIGH]! * 2 ** 32 + words[at + REQUEST_OFFSET_LOW]!;
    this.generation = words[at + REQUEST_GENERATION]!;
    this.isOpen = true;
    this.#moved = undefined;
  }

  /** What it asks for. */
  get op(): RequestOp {
    return OPS[this.#op]!;
  }

  /** @internal The kernel's number of {@link op}. */
  get opNumber(): number {
    return this.#op;
  }

  /** Where it begins, in bytes. */
  get offset(): number {
    return this.#offset;
  }

  /** How long it is, in bytes; 0 for a flush. Of a report, 64 bytes for each zone that is wanted. */
  get length(): number {
    return this.#length;
  }

  /** Whether a write must be durable before it is answered; see {@link Handler.fua}. */
  get fua(): boolean {
    return (this.#flags & FLAG_FUA) !== 0;
  }

  /** Whether zeros must keep their space. */
  get noUnmap(): boolean {
    return (this.#flags & FLAG_NO_UNMAP) !== 0;
  }

  /**
   * The data, {@link length} bytes: for a read to be filled in full, for a write to be stored. It
   * is memory that later requests use too: copy what you keep.
   *
   * @throws {UblkError} `ERR_UBLK_UNSUPPORTED` where the data never comes to JavaScript: with
   * `buffers` other than `'copy'` and `'user-copy'`, and for requests without data.
   */
  get data(): Buffer<ArrayBuffer> {
    const data = this.#data;
    return data?.length === this.#length && hasData(this.#op) ? data : this.#view();
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

  /** @internal A step has ended well. */
  stepEnded({ op, at, length }: Step): void {
    if (op === this.op) (this.#moved ??= new Coverage()).add(at, length);
  }

  /**
   * @internal Whether an answer of nothing can mean that the request has been done: the request has
   * no data, steps have moved all of its data, or its data is memory of JavaScript's.
   */
  get canBeDone(): boolean {
    if (this.#data !== undefined || !hasData(this.#op) || this.isMoved) return true;
    this.#memory ??= this.#owner.buffer(this.tag);
    return this.#memory !== null;
  }

  /** @internal Whether steps have moved all of the request's data. */
  get isMoved(): boolean {
    return this.#moved?.reaches(this.#length) ?? false;
  }

  /** @internal Whether its memory is still JavaScript's to write to. */
  get isIntact(): boolean {
    return this.#data === undefined || this.#length === 0 || this.#data.length !== 0;
  }

  /**
   * Reads from a backend into the data of a read request, which need not be in JavaScript for that.
   * The data of a write request is the client's: a step that reads into a write fails with `EINVAL`,
   * with every kind of buffers. Steps that are asked for at once run at once, and each settles with
   * its own result.
   *
   * @param backend Its name among {@link Handler.backends}.
   * @param offset Where on the backend, in bytes.
   * @param length How many bytes; by default all from `at` on.
   * @param at Where in the data, in bytes.
   * @throws {IoError} (as a rejection) The backend's error.
   * @throws {UblkError} (as a rejection) `ERR_UBLK_LATE_ANSWER`: the request has been answered, or
   * has timed out; `ERR_UBLK_INVALID_ARGUMENT`.
   */
  read(backend: Name, offset: number, length?: number, at = 0): Promise<void> {
    return this.#step('read', backend, offset, length ?? this.#length - at, at);
  }

  /**
   * Writes the data of a write request, or a part of it, to a backend; of a read request it fails with
   * `EINVAL`. Otherwise as {@link read}.
   */
  write(backend: Name, offset: number, length?: number, at = 0): Promise<void> {
    return this.#step('write', backend, offset, length ?? this.#length - at, at);
  }

  /** Puts all that was written to a backend on stable storage. */
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

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` unless it is a place or a number of bytes. */
export function checkBytes(value: unknown, name: string): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw invalid(`${name} is ${String(value)}; it must be a whole number of bytes`);
}
