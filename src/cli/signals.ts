import { ignoredSignals } from './ignored.ts';

/** The signals that ask a server to end, by how often they have come. */
export interface EndSignals {
  /** Aborts at the first of them. */
  readonly first: AbortSignal;
  /** Aborts at the second: what has begun shall not be waited for. */
  readonly second: AbortSignal;
}

const SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/**
 * Hears signals, except those that the starter of this process ignores. The third one ends the
 * process.
 */
export function hearSignals(names: readonly NodeJS.Signals[] = SIGNALS): EndSignals {
  const [first, second] = [new AbortController(), new AbortController()];
  const ignored = ignoredSignals();
  for (const name of names) {
    if (ignored.includes(name)) continue;
    process.on(name, () => {
      if (second.signal.aborted) process.exit(1);
      (first.signal.aborted ? second : first).abort();
    });
  }
  return { first: first.signal, second: second.signal };
}
