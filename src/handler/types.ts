import type { Size } from '../size.ts';
import type { Target } from '../targets/index.ts';
import type { HandlerRequest } from './request.ts';
import type { Zone } from './zone-report.ts';
import type { HandlerZones } from './zones.ts';

/** A piece of a request: a range of bytes and their place on a backend. */
export interface Piece<Name extends string = string> {
  /** The name of a backend. */
  readonly backend: Name;
  /** The place on the backend, in bytes: a multiple of the backend's block size. */
  readonly offset: number;
  /**
   * In bytes: a multiple of the backend's block size.
   * @default the rest of the request
   */
  readonly length?: number;
  /**
   * The place in the request, in bytes.
   * @default the end of the previous piece
   */
  readonly at?: number;
}

/**
 * The answer to a request.
 *
 * Pieces: the places of the request's bytes; the engine reads or writes the pieces, then ends the
 * request. The pieces must cover the request: each byte of a read once, each byte of a write at least
 * once (twice for a mirror).
 *
 * A request may have any number of pieces. The engine runs at most 64 pieces at a time.
 *
 * Nothing: the method has done the whole request. Allowed for a request without data, after the method
 * has taken {@link HandlerRequest.data} into its hands, and after steps that have moved all data.
 * Any other request without an answer fails with `EIO`, and the device emits a `'warning'` with the
 * method's name.
 */
export type Answer<Name extends string = string> =
  void | undefined | Piece<Name> | readonly Piece<Name>[];

/** A method that answers requests, at once or by a promise. An {@link IoError} fails the request. */
export type Method<Name extends string = string> = (
  request: HandlerRequest<Name>,
) => Answer<Name> | PromiseLike<Answer<Name>>;

/**
 * An object that answers a device's requests in JavaScript. The methods decide the device's abilities:
 * without `write` the device is read-only; without `flush` clients need not flush; without `discard`
 * and `writeZeroes` the kernel sends none.
 *
 * A method without a promise is many times cheaper than a method with a promise.
 */
export interface Handler<Name extends string = string> {
  /** Never present: an object with a kind is a native target. */
  readonly kind?: undefined;
  /** Never present: the option of a handler is {@link blockSize}. */
  readonly logicalBlockSize?: undefined;
  /** The size of the device. */
  readonly size: Size;
  /**
   * The unit of addressing in bytes: 512, 1024, 2048 or 4096.
   * @default the largest block size of the backends, else 512
   */
  readonly blockSize?: number | undefined;
  /**
   * Whether the device refuses writes in spite of a method for writes.
   * @default false
   */
  readonly readOnly?: boolean | undefined;
  /**
   * Whether the handler makes writes with {@link HandlerRequest.fua} durable before answering. If not,
   * the kernel sends a flush after each FUA write.
   * @default false; with `map` and without `flush`, the abilities of the backends decide
   */
  readonly fua?: boolean | undefined;
  /**
   * The time limit of a request, in milliseconds, 250 to 86400000: from the first call of the handler,
   * including all steps, and also while the device closes. A request without an answer then fails with
   * `ETIMEDOUT`, and the device emits a `'warning'`: never earlier, and up to half a second or an eighth
   * of the limit later. At most 20000 for an unprivileged device: the kernel kills a server with a
   * request 30 s old.
   * @default 30000; 20000 for an unprivileged device
   */
  readonly timeoutMs?: number | undefined;
  /** The native targets for pieces and steps, by names of your choice. */
  readonly backends?: Readonly<Record<Name, Target>> | undefined;
  /** Makes the device zoned (Linux 6.6); `buffers` must be `'user-copy'`. */
  readonly zones?: HandlerZones | undefined;

  /** Fills `request.data`, or answers with the place of the bytes. */
  read?: Method<Name>;
  /** Stores `request.data`, or answers with the place for the bytes. */
  write?: Method<Name>;
  /**
   * Makes all completed writes durable. With `map` and without this method, flushes go to all backends
   * without JavaScript.
   */
  flush?: Method<Name>;
  /** Drops the contents of a range: later reads of the range are undefined. */
  discard?: Method<Name>;
  /** Makes a range read as zeros. */
  writeZeroes?: Method<Name>;
  /**
   * Returns the zones from `request.offset` on, in order: at least 1, at most `request.length / 64`. Any
   * other answer fails the request with `EIO`, and the device emits a `'warning'`.
   */
  reportZones?: (request: HandlerRequest<Name>) => readonly Zone[] | PromiseLike<readonly Zone[]>;
  /** Stores `request.data` at the write pointer of the zone at `request.offset`; returns the place. */
  zoneAppend?: (request: HandlerRequest<Name>) => number | PromiseLike<number>;
  /** Keeps a zone open until a close, a finish or a reset. */
  zoneOpen?: Method<Name>;
  /** Closes a zone: the next write opens the zone again. */
  zoneClose?: Method<Name>;
  /** Makes a zone full. */
  zoneFinish?: Method<Name>;
  /** Empties a zone. */
  zoneReset?: Method<Name>;
  /** Empties all zones. */
  zoneResetAll?: Method<Name>;
  /**
   * Returns the places of the bytes of reads and writes, instead of `read` and `write`. With `map`
   * alone the data never comes to JavaScript: the kernel lends the client's pages, and the engine reads
   * and writes the backends. A request without an answer fails with `EIO`, unless the steps of `map`
   * have moved all data.
   */
  map?: (
    request: HandlerRequest<Name>,
  ) => Piece<Name> | readonly Piece<Name>[] | PromiseLike<Piece<Name> | readonly Piece<Name>[]>;

  /**
   * Returns what the handler of the next server needs to go on, where {@link handOver} or `ublk upgrade`
   * gives the device to another process: a value for `structuredClone()`, of at most 64 MiB, or a promise
   * of one. Called after the last request has been answered, in each worker. Fails the hand-over, and the
   * old server takes the device back, when it throws or takes longer than 30 s. Needs {@link resume}.
   */
  suspend?: () => unknown;
  /**
   * Takes what {@link suspend} has returned, before the first request; a promise is waited for, at most
   * 30 s. Not called without a hand-over: at first, and after a crash. If the hand-over fails later, the
   * old server calls its own handler, or a new copy of its own module, with the same state.
   */
  // oxlint-disable-next-line typescript/no-explicit-any -- what the handler's own suspend has returned
  resume?: (state: any) => unknown;
}
