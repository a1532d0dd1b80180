import { constants } from 'node:os';
import { performance } from 'node:perf_hooks';
import { setImmediate } from 'node:timers';

import { invalid, messageOf, UblkError, UblkErrorCode, unwrap } from '../errors.ts';
import type { NativeChannel } from '../native.ts';
import { IoError } from './io-error.ts';
import * as layout from './layout.ts';
import { PieceWriter } from './pieces.ts';
import {
  checkBytes,
  HandlerRequest,
  REPORT_ZONES,
  ZONE_APPEND,
  type RequestOwner,
  type Step,
} from './request.ts';
import { Rings } from './rings.ts';
import { StepQueue, tooLate } from './steps.ts';
import type { Answer, Method, Piece } from './types.ts';
import { checkPlace, writeReport } from './zone-report.ts';

// V8 looks up an import at each use, but treats a module's own `const` as a constant.
const {
  ANSWER_DONE,
  ANSWER_FAILED,
  ANSWER_LANDED,
  ANSWER_PLAN,
  ANSWER_REMAP,
  ANSWER_SPOILT,
  KIND_STEPPED,
  REQUEST_EPOCH,
  REQUEST_HEAD,
} = layout;

/** Options of a {@link HandlerQueue}. */
export interface QueueOptions {
  readonly queue: number;
  readonly depth: number;
  /** The handler's methods, by the kernel's number of the operation. */
  readonly methods: readonly (Method | undefined)[];
  /** Whether a method is the handler's `map`, by the kernel's number of the operation. */
  readonly mapped?: readonly boolean[];
  readonly backends: readonly string[];
  /** The size of a zone of a zoned device, in bytes. */
  readonly zoneSize?: number | undefined;
  /**
   * Whether to look for requests before sleeping.
   * @default false
   */
  readonly spins?: boolean;
  /** Reports warnings. */
  readonly warn: (warning: UblkError) => void;
}

const { EIO } = constants.errno;

/** The most requests of a turn of the event loop, in depths of the queue: timers and sockets wait. */
const TURN = 4;
/** The longest service of requests in a turn of the event loop, in milliseconds. */
const TURN_MS = 10;

/** Serves the requests of a queue: takes requests from the ring, calls the handler, answers. */
export class HandlerQueue implements RequestOwner {
  readonly #channel: NativeChannel;
  readonly #rings: Rings;
  readonly #pieces: PieceWriter;
  readonly #options: QueueOptions;
  readonly #methods: QueueOptions['methods'];
  readonly #spins: boolean;
  readonly #lookFor: () => boolean;
  readonly #requests: HandlerRequest[] = [];
  readonly #epochs: number[] = [];
  readonly #steps: StepQueue[] = [];
  readonly #serveOn = (): void => this.serve();
  readonly #flushLater = (): void => this.#flush();
  #flushing = false;
  #serving = false;
  /** The number of requests waiting for a promise. */
  unsettled = 0;

  constructor(channel: NativeChannel, options: QueueOptions) {
    this.#channel = channel;
    this.#options = options;
    this.#methods = options.methods;
    this.#spins = options.spins ?? false;
    this.#rings = new Rings(channel);
    this.#lookFor = channel.looker();
    this.#pieces = new PieceWriter(this.#rings, options.backends);
    for (let tag = 0; tag < options.depth; tag += 1) this.#renew(tag, 0);
  }

  /** Serves all present requests, then sleeps until the bell rings. Never throws. */
  readonly serve = (): void => {
    if (this.#serving) return;
    const until = this.#spins ? performance.now() + TURN_MS : 0;
    let left = this.#options.depth * TURN;
    do {
      left = this.#drain(left);
      this.#rings.pay();
      if (left === 0 || (this.#spins && performance.now() > until)) {
        setImmediate(this.#serveOn);
        return;
      }
    } while (this.#look() || !this.#rings.maySleep());
  };

  /** Serves the requests of a turn, without announcing sleep to the reactor. */
  serveAwake(): void {
    this.#drain(this.#options.depth * TURN);
  }

  /** Wakes the reactor if the last answers need a wake-up. */
  pay(): void {
    this.#rings.pay();
  }

  /** The owed wake-up, for a caller that calls the addon anyway. */
  takeDebt(): number {
    return this.#rings.takeDebt();
  }

  /** Spins for new requests; not with pending promises, which settle only in the event loop. */
  #look(): boolean {
    return this.#spins && this.unsettled === 0 && this.#lookFor();
  }

  /** Serves at most `left` requests; returns the number left. */
  #drain(left: number): number {
    this.#serving = true;
    let count: number;
    do {
      count = Math.min(this.#rings.pending, left);
      // The reactor works on these answers while this thread serves the next requests.
      if (count > 0) this.#rings.pay();
      for (let index = 0; index < count; index += 1) this.#begin(this.#rings.take());
      this.#rings.publish();
      left -= count;
    } while (count > 0 && left > 0);
    this.#serving = false;
    return left;
  }

  /** The memory of a tag's data. */
  buffer(tag: number): ArrayBuffer | null {
    return unwrap(this.#channel.buffer(tag));
  }

  /** Runs I/O of a backend on a request's data. */
  step(request: HandlerRequest, step: Step): Promise<void> {
    if (this.#isCurrent(request) && request.isOpen) {
      return this.#steps[request.tag]!.add(request, step);
    }
    return Promise.reject(tooLate(step));
  }

  #begin(at: number): void {
    const { words } = this.#rings;
    const head = words[at + REQUEST_HEAD]!;
    const tag = head & 0xffff;
    const kind = (head >>> 16) & 0xff;
    if (kind === KIND_STEPPED) {
      this.#steps[tag]!.ended();
      return;
    }
    if (this.#epochs[tag] !== words[at + REQUEST_EPOCH]) {
      this.#renew(tag, words[at + REQUEST_EPOCH]!);
    }
    const request = this.#requests[tag]!;
    request.become(words, at);
    try {
      const answer = this.#methods[kind]!(request);
      if (answer == null && request.steps === 0) this.#done(request);
      else if (request.steps > 0 || isPromise(answer)) this.#later(request, answer);
      else this.#finish(request, answer);
    } catch (error) {
      if (request.steps > 0) this.#later(request, Promise.reject(error));
      else this.#fail(request, error);
    }
  }

  /** A new object with new memory for a tag whose request has ended without an answer. */
  #renew(tag: number, epoch: number): void {
    this.#epochs[tag] = epoch;
    this.#requests[tag] = new HandlerRequest(this, this.#options.queue, tag);
    const abandoned = this.#steps[tag];
    this.#steps[tag] = new StepQueue(this.#rings, this.#pieces, this.#flushSoon);
    abandoned?.abandon();
  }

  /** A new object for the tag's next request: holders of the old object get no more steps. */
  #replace(request: HandlerRequest): void {
    const { queue, tag } = request;
    this.#requests[tag] = new HandlerRequest(this, queue, tag, request);
  }

  #later(request: HandlerRequest, answer: ReturnType<Method>): void {
    const { generation } = request;
    this.unsettled += 1;
    // Wrapped in a native promise, which settles at most once.
    Promise.resolve(answer).then(
      (value) => this.#settle(request, generation, () => this.#finish(request, value)),
      (error: unknown) => this.#settle(request, generation, () => this.#fail(request, error)),
    );
  }

  #settle(request: HandlerRequest, generation: number, answer: () => void): void {
    if (request.steps > 0 && this.#isCurrent(request)) {
      this.#steps[request.tag]!.whenIdle(() => this.#settle(request, generation, answer));
      return;
    }
    this.unsettled -= 1;
    if (this.#isCurrent(request) && request.generation === generation) {
      answer();
      this.#flushSoon();
      if (this.#options.backends.length > 0 && !request.isOpen) this.#replace(request);
    } else {
      this.#warn(
        UblkErrorCode.LateAnswer,
        'a request was answered after it had timed out',
        request,
      );
    }
  }

  /** Whether the tag still uses this object. */
  #isCurrent(request: HandlerRequest): boolean {
    return this.#requests[request.tag] === request;
  }

  #finish(request: HandlerRequest, answer: Answer): void {
    const { opNumber } = request;
    if (opNumber === ZONE_APPEND || opNumber === REPORT_ZONES) this.#zoned(request, answer);
    else if (answer == null) this.#done(request);
    else this.#plan(request, answer as Piece | readonly Piece[]);
  }

  /** Answers a zone report, or a zone append with the place of the data. */
  #zoned(request: HandlerRequest, answer: unknown): void {
    const { tag, offset, length } = request;
    const zoneSize = this.#options.zoneSize!;
    try {
      if (request.opNumber === REPORT_ZONES) {
        writeReport(request.data, answer, zoneSize, offset);
        this.#done(request);
        return;
      }
      const place = checkPlace(answer, offset, length, zoneSize);
      if (request.isIntact) this.#answer(request, tag | (ANSWER_LANDED << 16), place);
      else this.#spoilt(request);
    } catch (error) {
      this.#fail(request, error);
    }
  }

  #done(request: HandlerRequest): void {
    if (request.opNumber === ZONE_APPEND) this.#zoned(request, undefined);
    else if (!request.isIntact) this.#spoilt(request);
    else if (this.#mayBeDone(request)) {
      this.#answer(request, request.tag | (ANSWER_DONE << 16), 0);
    } else this.#fail(request, this.#noAnswer(request));
  }

  /** Whether an empty answer is valid: the method has had the request's data in JavaScript. */
  #mayBeDone(request: HandlerRequest): boolean {
    return this.#isMapped(request) ? request.isMoved : request.canBeDone;
  }

  #isMapped({ opNumber }: HandlerRequest): boolean {
    return this.#options.mapped?.[opNumber] === true;
  }

  #noAnswer(request: HandlerRequest): UblkError {
    const { op } = request;
    const isMapped = this.#isMapped(request);
    const hint = isMapped
      ? 'return a piece or several on every way through map, or move all of the data by steps'
      : `use request.data (with buffers: 'copy'), return pieces, or move all of the data by steps`;
    return invalid(
      `${isMapped ? 'map' : op} answered nothing, and not all data of the ${op} has been moved`,
      hint,
    );
  }

  #plan(request: HandlerRequest, answer: Piece | readonly Piece[]): void {
    try {
      const piece = wholeOf(request, answer);
      if (piece !== undefined) {
        const backend = this.#pieces.backend(piece.backend);
        const offset = checkBytes(piece.offset, 'the offset of a piece');
        this.#answer(request, request.tag | (ANSWER_REMAP << 16) | (backend << 24), offset);
        return;
      }
      const pieces = isList(answer) ? answer : [answer];
      if (this.#pieces.areTooMany(pieces)) {
        this.#later(request, this.#inTurns(request, pieces));
        return;
      }
      const count = this.#pieces.plan(request, pieces);
      this.#answer(request, request.tag | (ANSWER_PLAN << 16) | (count << 24), 0);
    } catch (error) {
      this.#fail(request, error);
    }
  }

  /** Runs pieces beyond the limit of an answer as steps, in groups as large as the reactor allows. */
  async #inTurns(request: HandlerRequest, pieces: readonly Piece[]): Promise<void> {
    const steps = this.#pieces.split(request, pieces);
    await Promise.all(steps.map((step) => this.step(request, step)));
  }

  #fail(request: HandlerRequest, error: unknown): void {
    let errno = EIO;
    if (IoError.is(error)) errno = error.errno;
    else this.#warn(UblkErrorCode.Handler, `the handler failed to ${request.op}`, request, error);
    const kind = request.isIntact ? ANSWER_FAILED : ANSWER_SPOILT;
    this.#answer(request, request.tag | (kind << 16), errno);
    if (kind === ANSWER_SPOILT) this.#channel.keepBuffer(request.tag);
  }

  /** Fails a request whose memory was transferred: the new owner may write at any time. */
  #spoilt(request: HandlerRequest): void {
    const message = "the request's data was transferred away";
    const hint = 'transfer a copy of it: Uint8Array.from(request.data)';
    this.#warn(UblkErrorCode.DataDetached, message, request, undefined, hint);
    this.#channel.keepBuffer(request.tag);
    this.#answer(request, request.tag | (ANSWER_SPOILT << 16), EIO);
  }

  /** `detail`: an errno, or a place. */
  #answer(request: HandlerRequest, head: number, detail: number): void {
    request.isOpen = false;
    this.#rings.answer(head >>> 0, request.generation, detail);
  }

  #warn(
    code: UblkErrorCode,
    message: string,
    request: HandlerRequest,
    cause?: unknown,
    hint?: string,
  ): void {
    const { op, offset, length, queue } = request;
    const reason = cause === undefined ? '' : `: ${messageOf(cause)}`;
    this.#options.warn(
      new UblkError(code, `${message}${reason}`, {
        hint: hint ?? (UblkError.is(cause) ? cause.hint : undefined),
        request: { op, offset, length, queue },
        ...(cause === undefined ? {} : { cause }),
      }),
    );
  }

  /** Shows the reactor all answers by promises of this turn at once. */
  readonly #flushSoon = (): void => {
    if (this.#flushing || this.#serving) return;
    this.#flushing = true;
    queueMicrotask(this.#flushLater);
  };

  #flush(): void {
    this.#flushing = false;
    this.#rings.flush();
  }
}

/** The only piece of an answer; undefined for several pieces. */
function wholeOf(request: HandlerRequest, answer: Piece | readonly Piece[]): Piece | undefined {
  const piece = isList(answer) ? onlyOf(answer) : answer;
  if (piece == null) return undefined;
  const whole = (piece.at ?? 0) === 0 && (piece.length ?? request.length) === request.length;
  return whole ? piece : undefined;
}

function onlyOf(pieces: readonly Piece[]): Piece | undefined {
  return pieces.length === 1 ? pieces[0] : undefined;
}

function isList(answer: Piece | readonly Piece[]): answer is readonly Piece[] {
  return Array.isArray(answer);
}

function isPromise(answer: ReturnType<Method>): answer is PromiseLike<Answer> {
  return typeof (answer as PromiseLike<Answer> | undefined)?.then === 'function';
}
