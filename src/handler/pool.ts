import { Worker, type WorkerOptions } from 'node:worker_threads';

import { invalid, UblkError, UblkErrorCode } from '../errors.ts';
import {
  fromMessage,
  type Assignment,
  type FromWorker,
  type HandlerShape,
  type ToWorker,
  type WorkerStart,
} from './messages.ts';
import type { HandlerModule } from './module.ts';

/** The program of a worker: a file beside this file, TypeScript or JavaScript like this file. */
function program(): URL {
  return new URL(`./worker${import.meta.url.slice(-3)}`, import.meta.url);
}

/** The callbacks of a pool's owner. */
export interface PoolListener {
  readonly warn: (warning: UblkError) => void;
  /** A worker has ended unasked: no thread answers the worker's queues. */
  readonly lost: (error: UblkError) => void;
}

/** The worker threads of a handler module. */
export class WorkerPool {
  readonly #workers: readonly Worker[];
  #ending = false;

  private constructor(workers: readonly Worker[], listener: PoolListener) {
    this.#workers = workers;
    for (const worker of workers) this.#listen(worker, listener);
  }

  /**
   * Starts the workers; returns the shape of the handler in the first worker.
   *
   * @throws {UblkError} `ERR_UBLK_HANDLER` when the module fails, `ERR_UBLK_INVALID_ARGUMENT` when
   * the default export is no handler.
   */
  static async start(
    { url, workers: count, data }: HandlerModule,
    listener: PoolListener,
  ): Promise<{ pool: WorkerPool; shape: HandlerShape }> {
    const workerData: WorkerStart = { url, data };
    const options = { workerData, execArgv: inheritable(process.execArgv) };
    const workers: Worker[] = [];
    try {
      while (workers.length < count) workers.push(startWorker(options));
      const shapes = await Promise.all(workers.map((worker) => shapeOf(worker)));
      return { pool: new WorkerPool(workers, listener), shape: shapes[0]! };
    } catch (error) {
      await Promise.all(workers.map((worker) => worker.terminate()));
      throw error;
    }
  }

  /** Starts the service: each worker serves a share of the queues. Resolves once all are ready. */
  async serve({ queues, ...common }: Assignment): Promise<void> {
    const share = (index: number): number[] =>
      queues.filter((queue) => queue % this.#workers.length === index);
    const assign = (worker: Worker, index: number): Promise<unknown> =>
      ask(worker, { ...common, queues: share(index) }, 'serving');
    await Promise.all(this.#workers.map(assign));
    // From here on the device keeps the process alive, not the workers.
    for (const worker of this.#workers) worker.unref();
  }

  /** The number of workers. */
  get size(): number {
    return this.#workers.length;
  }

  /** The state of each worker's handler. */
  async suspend(): Promise<unknown[]> {
    const states = this.#workers.map((worker) => ask(worker, { suspend: true }, 'suspended'));
    return (await Promise.all(states)).map(({ suspended }) => suspended);
  }

  /** Gives each worker's handler a state of {@link suspend}. */
  async resume(states: readonly unknown[]): Promise<void> {
    const give = (worker: Worker, index: number): Promise<unknown> =>
      ask(worker, { resume: states[index] }, 'resumed');
    await Promise.all(this.#workers.map(give));
  }

  /** Ends the workers. */
  async release(): Promise<void> {
    this.#ending = true;
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #listen(worker: Worker, { warn, lost }: PoolListener): void {
    worker.on('message', (message: FromWorker) => {
      if ('warning' in message) warn(fromMessage(message.warning));
    });
    let cause: unknown;
    worker.on('error', (error) => (cause = error));
    worker.on('exit', () => {
      if (!this.#ending) lost(ended(cause));
    });
  }
}

function startWorker(options: WorkerOptions): Worker {
  try {
    return new Worker(program(), options);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    if (cause instanceof DOMException && cause.name === 'DataCloneError') {
      throw invalid(
        `the data of handlerModule() cannot go to a worker: ${reason}`,
        'give it what structuredClone() takes; functions belong into the module',
      );
    }
    throw ended(cause);
  }
}

/** The options of Node.js in this process, without `--eval` and the like. */
function inheritable(args: readonly string[]): string[] {
  const isProgram = (arg: string | undefined): boolean =>
    /^(-e|-pe?|--eval|--print)$/.test(arg ?? '');
  return args.filter(
    (arg, index) =>
      !arg.startsWith('--input-type') && !isProgram(arg) && !isProgram(args[index - 1]),
  );
}

/** Sends a message; resolves with the worker's answer. */
function ask<Key extends AnswerKey>(
  worker: Worker,
  message: ToWorker,
  key: Key,
): Promise<Answer<Key>> {
  const answer = firstMessage(worker, key);
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- no window
  worker.postMessage(message);
  return answer;
}

type AnswerKey = 'shape' | 'serving' | 'suspended' | 'resumed';
type Answer<Key extends AnswerKey> = Extract<FromWorker, Record<Key, unknown>>;

async function shapeOf(worker: Worker): Promise<HandlerShape> {
  const { shape } = await firstMessage(worker, 'shape');
  return shape;
}

/** Resolves with the first message with `key`; rejects when the worker fails or ends. */
function firstMessage<Key extends AnswerKey>(worker: Worker, key: Key): Promise<Answer<Key>> {
  return new Promise((resolve, reject) => {
    let cause: unknown;
    worker.on('error', (error) => {
      cause = error;
      reject(ended(error));
    });
    worker.once('exit', () => reject(ended(cause)));
    worker.on('message', (message: FromWorker) => {
      if ('failure' in message) reject(fromMessage(message.failure));
      if (key in message) resolve(message as Answer<Key>);
    });
  });
}

function ended(cause: unknown): UblkError {
  const reason = cause instanceof Error ? `: ${cause.message}` : '';
  return new UblkError(UblkErrorCode.Handler, `a worker of the handler has ended${reason}`, {
    cause,
  });
}
