import { ignoredSignals } from './ignored.ts';

/** Requests by signals to end a server. */
export interface EndSignals {
  /** Aborts at the first signal. */
  readonly first: AbortSignal;
  /** Aborts at the second signal, which ends all waiting. */
  readonly second: AbortSignal;
}

const SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/**
 * Listens to signals, except signals that the starter of this process ignores. The third signal ends
 * the process.
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
