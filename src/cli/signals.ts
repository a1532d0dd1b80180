import { ignoredSignals } from './ignored.ts';

/** The signals that ask a server to end, by how often they have come. */
export interface EndSignals {
  /** Aborts at the first of them. */
  readonly first: AbortSignal;
  /** Aborts at the second: what has begun shall not be waited for. */
  readonly second: AbortSignal;
}

/**
 * Hears SIGINT, SIGTERM and SIGHUP, except those that the starter of this process ignores. The third
 * one ends the process.
 */
export function hearSignals(): EndSignals {
  const [first, second] = [new AbortController(), new AbortController()];
  const ignored = ignoredSignals();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    if (ignored.includes(name)) continue;
    process.on(name, () => {
      if (second.signal.aborted) process.exit(1);
      (first.signal.aborted ? second : first).abort();
    });
  }
  return { first: first.signal, second: second.signal };
}
