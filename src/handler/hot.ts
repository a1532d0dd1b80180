import { performance } from 'node:perf_hooks';
import { setImmediate } from 'node:timers';

import type { NativeChannel } from '../native.ts';
import type { HandlerQueue } from './queue.ts';

/** How long this thread may serve without its event loop, in milliseconds. */
const TURN_MS = 10;
/** How long it may sleep without it, in microseconds. */
const WAIT_US = 1000;
/** The clock costs more than a small batch. */
const BATCHES_PER_CLOCK = 16;

/**
 * Serves a queue as the only work of its thread: between requests the thread sleeps in a call of
 * the addon, which wakes sooner than an event loop. Timers, messages and sockets have their turn
 * every 10 ms or so, at once while promises are waited for, and while no requests come.
 *
 * @returns What to call when the bell rings.
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
