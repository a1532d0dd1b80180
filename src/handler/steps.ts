import { errnoName } from '../errno.ts';
import { UblkError, UblkErrorCode } from '../errors.ts';
import { IoError } from './io-error.ts';
import { ANSWER_STEPS, NOT_BEGUN } from './layout.ts';
import type { PieceWriter } from './pieces.ts';
import type { HandlerRequest, Step } from './request.ts';
import type { Rings } from './rings.ts';

interface Waiting {
  readonly step: Step;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

/**
 * The steps of a tag's request. Steps of the same turn of the event loop go to the reactor together;
 * later steps wait for the end of the steps in flight.
 */
export class StepQueue {
  readonly #rings: Rings;
  readonly #pieces: PieceWriter;
  readonly #flushSoon: () => void;
  #request: HandlerRequest | undefined;
  #waiting: Waiting[] = [];
  #running: Waiting[] = [];
  #whenIdle: (() => void)[] = [];
  #sending = false;

  constructor(rings: Rings, pieces: PieceWriter, flushSoon: () => void) {
    this.#rings = rings;
    this.#pieces = pieces;
    this.#flushSoon = flushSoon;
  }

  /** Adds a step; settles at the end of the step. */
  add(request: HandlerRequest, step: Step): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#pieces.checkStep(step);
      this.#request = request;
      request.steps += 1;
      this.#waiting.push({ step, resolve, reject });
      if (this.#running.length === 0 && !this.#sending) {
        this.#sending = true;
        queueMicrotask(() => this.#send());
      }
    });
  }

  /** Settles the steps that the reactor has done. */
  ended(): void {
    const { tag } = this.#request!;
    const ended = this.#running;
    this.#running = [];
    const again: Waiting[] = [];
    for (const [index, waiting] of ended.entries()) {
      const errno = this.#pieces.errno(tag, index);
      if (errno === NOT_BEGUN) again.push(waiting);
      else this.#settle(waiting, errno === 0 ? undefined : stepError(waiting.step, errno));
    }
    this.#waiting.unshift(...again);
    if (this.#waiting.length > 0) this.#send();
    else this.#idle();
  }

  /** Fails all steps: the request has ended before its steps. */
  abandon(): void {
    for (const waiting of [...this.#running.splice(0), ...this.#waiting.splice(0)]) {
      this.#settle(waiting, tooLate(waiting.step));
    }
    this.#idle();
  }

  /** Calls the callback once no step is left. */
  whenIdle(call: () => void): void {
    this.#whenIdle.push(call);
  }

  #send(): void {
    this.#sending = false;
    if (this.#waiting.length === 0) return;
    const { tag, generation } = this.#request!;
    const steps = this.#waiting.map(({ step }) => step);
    const count = this.#pieces.steps(tag, steps);
    this.#running = this.#waiting.splice(0, count);
    const head = tag | (ANSWER_STEPS << 16) | (count << 24);
    this.#rings.answer(head >>> 0, generation, 0);
    this.#flushSoon();
  }

  #settle({ step, resolve, reject }: Waiting, error: unknown): void {
    const request = this.#request!;
    request.steps -= 1;
    if (error !== undefined) return reject(error);
    request.stepEnded(step);
    resolve();
  }

  #idle(): void {
    for (const call of this.#whenIdle.splice(0)) call();
  }
}

function stepError({ op, backend }: Step, errno: number): IoError {
  const name = errnoName(errno);
  return IoError.of(name, `backend '${backend}' failed to ${op} with ${name}`);
}

/** The error of a step whose request has ended. */
export function tooLate({ op }: Step): UblkError {
  const message = `the request has ended: a step to ${op} comes too late`;
  return new UblkError(UblkErrorCode.LateAnswer, message);
}
