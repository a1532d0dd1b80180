import { errnoName } from '../errno.ts';
import { IoError } from './io-error.ts';
import { ANSWER_STEPS } from './layout.ts';
import type { PieceWriter } from './pieces.ts';
import type { HandlerRequest, Step } from './request.ts';
import type { Rings } from './rings.ts';

interface Waiting {
  readonly step: Step;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

/**
 * The steps of one tag's request. Those of one turn go to the reactor together; those that come
 * meanwhile wait until these have ended.
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

  /** Adds a step; settles when it has ended. */
  add(request: HandlerRequest, step: Step): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#pieces.backend(step.backend);
      this.#request = request;
      request.steps += 1;
      this.#waiting.push({ step, resolve, reject });
      if (this.#running.length === 0 && !this.#sending) {
        this.#sending = true;
        queueMicrotask(() => this.#send());
      }
    });
  }

  /** The reactor has done the steps that it had, with this errno or 0. */
  ended(errno: number): void {
    const ended = this.#running;
    this.#running = [];
    this.#settle(ended, errno === 0 ? undefined : stepError(errnoName(errno)));
  }

  /** Calls when no step is left. */
  whenIdle(call: () => void): void {
    this.#whenIdle.push(call);
  }

  #send(): void {
    this.#sending = false;
    const request = this.#request!;
    const steps = this.#waiting.map(({ step }) => step);
    try {
      const count = this.#pieces.steps(request, steps);
      this.#running = this.#waiting.splice(0, count);
      const head = request.tag | (ANSWER_STEPS << 16) | (count << 24);
      this.#rings.answer(head >>> 0, request.generation, 0);
      this.#flushSoon();
    } catch (error) {
      const failed = this.#waiting;
      this.#waiting = [];
      this.#settle(failed, error);
    }
  }

  #settle(ended: readonly Waiting[], error: unknown): void {
    this.#request!.steps -= ended.length;
    for (const { resolve, reject } of ended) {
      if (error === undefined) resolve();
      else reject(error);
    }
    if (this.#waiting.length > 0) {
      this.#send();
      return;
    }
    for (const call of this.#whenIdle.splice(0)) call();
  }
}

function stepError(name: string): IoError {
  return IoError.of(name, `a backend failed with ${name}`);
}
