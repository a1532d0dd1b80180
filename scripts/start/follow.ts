// The job as seen from here: its messages, turned into promises.

import { Writable } from 'node:stream';
import type { JobResult, Message, Step } from './protocol.ts';

/** One line of output per message; the end of a run that said nothing comes from outside. */
export class JobFollower {
  readonly #waiting = new Map<string, Waiting<string>>();
  readonly #result = waiting<JobResult>();
  readonly #hello = waiting<void>();
  #failure: Error | undefined;
  #rest = '';
  /** Where the job's stdout goes. */
  readonly output: Writable = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      this.#read(chunk.toString());
      done();
    },
  });

  /** Whether the job has started. */
  started = false;

  /** Resolves when it has. */
  get hello(): Promise<void> {
    return this.#hello.promise;
  }

  get result(): Promise<JobResult> {
    return this.#result.promise;
  }

  /** Resolves with what came of a step; `progress` is called meanwhile. */
  step(step: Step, progress: (text: string) => void): Promise<string> {
    const one = this.#of(step);
    one.progress = progress;
    return one.promise;
  }

  /** Whatever is still waited for will not come. The first reason counts. */
  fail(error: Error): void {
    this.#failure ??= error;
    for (const one of [this.#hello, this.#result, ...this.#waiting.values()]) {
      one.reject(this.#failure);
    }
  }

  #of(step: Step): Waiting<string> {
    const one = this.#waiting.get(step) ?? waiting<string>();
    this.#waiting.set(step, one);
    if (this.#failure) one.reject(this.#failure);
    return one;
  }

  #read(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#take(toMessage(line));
  }

  #start(): void {
    this.started = true;
    this.#hello.resolve();
  }

  #take(message: Message): void {
    if ('hello' in message) this.#start();
    else if ('result' in message) this.#result.resolve(message.result);
    else if ('failed' in message) this.fail(new Error(message.failed));
    else if ('done' in message) this.#of(message.step).resolve(message.done);
    else this.#of(message.step).progress?.(message.progress);
  }
}

function toMessage(line: string): Message {
  try {
    return JSON.parse(line) as Message;
  } catch {
    return { failed: `The job said something unexpected: ${line}` };
  }
}

interface Waiting<T> {
  promise: Promise<T>;
  resolve(value: T): void;
  reject(error: Error): void;
  progress?: (text: string) => void;
}

function waiting<T>(): Waiting<T> {
  let resolve!: Waiting<T>['resolve'];
  let reject!: Waiting<T>['reject'];
  const promise = new Promise<T>((...settle) => ([resolve, reject] = settle));
  promise.catch(() => {}); // nobody may be waiting for it yet
  return { promise, resolve, reject };
}
