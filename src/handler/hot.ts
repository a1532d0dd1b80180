import { performance } from 'node:perf_hooks';
import { setImmediate } from 'node:timers';

import type { NativeChannel } from '../native.ts';
import type { HandlerQueue } from './queue.ts';

/** The longest service without a turn of the event loop, in milliseconds. */
const TURN_MS = 10;
/** The longest sleep without a turn of the event loop, in microseconds. */
const WAIT_US = 1000;
/** Batches between looks at the clock, which costs more than a small batch. */
const BATCHES_PER_CLOCK = 16;

/**
 * Serves a queue as the only work of the thread: between requests the thread sleeps in a call of the
 * addon, which wakes up faster than an event loop. Timers, messages and sockets have a turn about
 * every 10 ms, and at once while promises are pending or no requests come.
 *
 * @returns The function to call when the bell rings.
 */
export function serveHot(channel: NativeChannel, queue: HandlerQueue): () => void {
  const payAndWait = channel.waiter(WAIT_US);
  const serve = (): void => {
    const until = performance.now() + TURN_MS;
    for (let batches = 1; ; batches += 1) {
      queue.serveAwake();
      const late = batches % BATCHES_PER_CLOCK === 0 && performance.now() >= until;
      if (late || queue.unsettled > 0) {
        queue.pay();
        if (!late) break;
        setImmediate(serve);
        return;
      }
      if (!payAndWait(queue.takeDebt())) break;
    }
    queue.serve();
  };
  return serve;
}
