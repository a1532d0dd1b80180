import type { Size } from '../size.ts';
import type { Target } from '../targets/index.ts';
import type { HandlerRequest } from './request.ts';
import type { HandlerZones, Zone } from './zones.ts';

/** A piece of a request: where some of its bytes are. */
export interface Piece<Name extends string = string> {
  /** The name of a backend. */
  readonly backend: Name;
  /** Where on the backend, in bytes: a multiple of its block size. */
  readonly offset: number;
  /**
   * How many bytes: a multiple of the backend's block size.
   * @default all that are left of the request
   */
  readonly length?: number;
  /**
   * Where in the request, in bytes.
   * @default where the piece before it ends
   */
  readonly at?: number;
}

/**
 * How a request is answered.
 *
 * A piece or several: the request's bytes are there, and the request ends when they have been read
 * or written. Together the pieces must cover the request, a write as often as you like (a mirror),
 * a read once.
 *
 * A request may have any number of pieces. More than 64 of them are done 64 at a time.
 *
 * Nothing: the method has done the request in full. That is an answer only of a method that has had
 * the data in its hands: a read or a write whose {@link HandlerRequest.data} is in JavaScript, or
 * whose data the method's steps have moved as a whole; a request without data. Otherwise the request
 * fails with `EIO`, and the device tells it as a `'warning'` that names the method.
 */
export type Answer<Name extends string = string> =
  void | undefined | Piece<Name> | readonly Piece<Name>[];

/** A method that answers requests, at once or later. To fail one it throws an {@link IoError}. */
export type Method<Name extends string = string> = (
  request: HandlerRequest<Name>,
) => Answer<Name> | PromiseLike<Answer<Name>>;

/**
 * What answers a device's requests in JavaScript. The methods that it has are what the device can
 * do: without `write`, it is read-only; without `flush`, clients need not flush; without `discard`
 * and `writeZeroes`, nobody sends any.
 *
 * A method that answers at once is many times cheaper than one that returns a promise.
 */
export interface Handler<Name extends string = string> {
  /** Nothing: what has a kind is one of {@link targets}. */
  readonly kind?: undefined;
  /** Nothing: of a handler that is {@link blockSize}. */
  readonly logicalBlockSize?: undefined;
  /** The size of the device. */
  readonly size: Size;
  /**
   * The unit of addressing in bytes: 512, 1024, 2048 or 4096.
   * @default what the backend with the largest blocks needs, else 512
   */
  readonly blockSize?: number | undefined;
  /**
   * Whether writes are refused although there is a method for them.
   * @default false
   */
  readonly readOnly?: boolean | undefined;
  /**
   * Whether writes with {@link HandlerRequest.fua} are durable before they are answered. If not,
   * the kernel sends a flush after each such write.
   * @default false; where flushes are left to backends, whether those can
   */
  readonly fua?: boolean | undefined;
  /**
   * How long a request may stay unanswered, in milliseconds, 250 to 86400000: from when the handler
   * is asked first, with all of its steps, and also while the device is being closed. Then the
   * request fails with `ETIMEDOUT`, and the device tells it as a `'warning'`. Never earlier; later
   * by half a second, or an eighth of the limit. Of an unprivileged device 20000 at most: the kernel
   * kills its server when a request is 30 s old.
   * @default 30000; 20000 for an unprivileged device
   */
  readonly timeoutMs?: number | undefined;
  /** What {@link Answer}s and steps can put bytes on: native targets, by names of your choice. */
  readonly backends?: Readonly<Record<Name, Target>> | undefined;
  /** Makes it a zoned device (Linux 6.6), which `buffers` must be `'user-copy'` for. */
  readonly zones?: HandlerZones | undefined;

  /** Fills `request.data`, or says where the bytes are. */
  read?: Method<Name>;
  /** Stores `request.data`, or says where it belongs. */
  write?: Method<Name>;
  /**
   * Puts all that was written before on stable storage. Where `map` is and this is not, flushes go
   * to all backends without JavaScript.
   */
  flush?: Method<Name>;
  /** Forgets a range: what it reads from now on is undefined. */
  discard?: Method<Name>;
  /** Makes a range read as zeros. */
  writeZeroes?: Method<Name>;
  /**
   * Tells of the zones from the one at `request.offset` on, in their order: one at least, and
   * `request.length / 64` of them at most. Another answer fails the request with `EIO`, and the
   * device tells it as a `'warning'`.
   */
  reportZones?: (request: HandlerRequest<Name>) => readonly Zone[] | PromiseLike<readonly Zone[]>;
  /** Stores `request.data` at the write pointer of the zone at `request.offset`, and says where. */
  zoneAppend?: (request: HandlerRequest<Name>) => number | PromiseLike<number>;
  /** Keeps a zone open until it is told otherwise. */
  zoneOpen?: Method<Name>;
  /** The zone is not written for a while. */
  zoneClose?: Method<Name>;
  /** The zone is full from now on. */
  zoneFinish?: Method<Name>;
  /** Empties a zone. */
  zoneReset?: Method<Name>;
  /** Empties all zones. */
  zoneResetAll?: Method<Name>;
  /**
   * Says where the bytes of reads and writes are, in place of `read` and `write`. With it alone the
   * data never comes to JavaScript: the kernel lends the client's pages, and the backends' disks
   * read and write them. A request that `map` answers nothing for fails with `EIO`, unless steps of
   * `map` have moved all of its data.
   */
  map?: (
    request: HandlerRequest<Name>,
  ) => Piece<Name> | readonly Piece<Name>[] | PromiseLike<Piece<Name> | readonly Piece<Name>[]>;
}
