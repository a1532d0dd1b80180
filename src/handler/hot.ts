import { performance } from 'node:perf_hooks';
import { setImmediate } from 'node:timers';

import type { NativeChannel } from '../native.ts';
import type { HandlerQueue } from './queue.ts';

/** How long this thread may sleep without its event loop, in milliseconds. */
const WAIT_MS = 10;

/**
 * Serves a queue as the only work of its thread: between requests the thread sleeps in a call of
 * the addon, which wakes sooner than an event loop. Timers, messages and sockets have their turn
 * every 10 ms, at once while promises are waited for, and for as long as no requests come.
 *
 * @returns What to call when the bell rings.
 */
export function serveHot(channel: NativeChannel, queue: HandlerQueue): () => void {
  const serve = (): void => {
    const until = performance.now() + WAIT_MS;
    for (let idle = false; ;) {
      if (idle || queue.unsettled > 0) {
        queue.serve();
        return;
      }
      queue.serveAwake();
      const left = until - performance.now();
      if (left <= 0) {
        setImmediate(serve);
        return;
      }
      idle = queue.unsettled === 0 && !channel.wait(Math.ceil(left * 1000));
    }
  };
  return serve;
}
