import { ignoredSignals } from './ignored.ts';

/** Requests by signals to end a server. */
export interface EndSignals {
  /** Aborts at the first signal. */
  readonly first: AbortSignal;
  /** Aborts at the second signal, which ends all waiting. */
  readonly second: AbortSignal;
  /** Aborts, before the others do, at the signal of a restart: a next server follows at once. */
  readonly restart: AbortSignal;
}

const SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/** The signal of a restart, which the unit of `ublk service install` names (`RestartKillSignal`). */
export const RESTART_SIGNAL = 'SIGUSR2';

/**
 * Listens to signals and to the signal of a restart, except signals that the starter of this process
 * ignores. The third signal ends the process.
 */
export function hearSignals(names: readonly NodeJS.Signals[] = SIGNALS): EndSignals {
  const [first, second] = [new AbortController(), new AbortController()];
  const restart = new AbortController();
  const ignored = ignoredSignals();
  for (const name of [...names, RESTART_SIGNAL] as const) {
    if (ignored.includes(name)) continue;
    process.on(name, () => {
      if (second.signal.aborted) process.exit(1);
      if (name === RESTART_SIGNAL) restart.abort();
      (first.signal.aborted ? second : first).abort();
    });
  }
  return { first: first.signal, second: second.signal, restart: restart.signal };
}
