import { constants } from 'node:os';
import { isMainThread } from 'node:worker_threads';

import { checkKeys } from './check.ts';
import { debug } from './debug.ts';
import { invalid, UblkError, UblkErrorCode, unwrap } from './errors.ts';
import { native } from './native.ts';

/** Options of {@link closeOnSignals}. */
export interface CloseOnSignalsOptions {
  /**
   * The signals to listen to.
   * @default ['SIGINT', 'SIGTERM', 'SIGHUP']
   */
  readonly signals?: readonly NodeJS.Signals[] | undefined;
}

const SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/**
 * Closes all devices before a signal such as Ctrl-C ends the program. Without a listener a signal ends
 * a program of Node.js at once, no library code runs, and each device without `recovery` stays
 * behind, dead. Only this function makes the package listen to signals.
 *
 * The first signal ends all devices of the process, also the workers' devices, as the end of the
 * program does: devices with `recovery` are left to the next server; all others are closed after the
 * kernel has written back the clients' page cache. Handlers keep answering. Then the signal ends the
 * program, unless the program has other listeners for the signal. A second signal ends the wait. If
 * a device does not end, a warning names the reason, and the service continues until the next signal.
 *
 * Node.js starts with the default action for each signal, also for signals ignored by the starter: a
 * program under `nohup` leaves SIGHUP out of `signals` and installs a listener for SIGHUP. No program
 * can listen to SIGKILL; `ublk list` shows the devices left behind, and `ublk delete` removes them.
 *
 * @example
 * closeOnSignals();
 * const device = await createDevice({ target: { size: '1GiB', read, write } });
 *
 * @returns Stops listening when disposed of.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`; `ERR_UBLK_UNSUPPORTED` in a worker, because Node.js
 * delivers signals to the main thread only.
 */
export function closeOnSignals(options: CloseOnSignalsOptions = {}): Disposable {
  checkKeys(options, 'closeOnSignals()', ['signals']);
  const { signals = SIGNALS } = options;
  if (!Array.isArray(signals) || !signals.every((one) => Object.hasOwn(constants.signals, one))) {
    throw invalid(`signals is ${String(signals)}; it must be an array of names such as 'SIGTERM'`);
  }
  if (!isMainThread) {
    throw new UblkError(UblkErrorCode.Unsupported, 'a worker of Node.js hears no signals', {
      hint: "call closeOnSignals() in the main thread; it closes the workers' devices too",
    });
  }
  let closing = false;
  const stop = (): void => signals.forEach((one) => void process.off(one, hear));
  const hear = (signal: NodeJS.Signals): void => {
    if (closing) return end(signal);
    closing = true;
    closeAll(signal).then(
      () => end(signal),
      (error: UblkError) => {
        closing = false;
        process.emitWarning(error);
      },
    );
  };
  const end = (signal: NodeJS.Signals): void => {
    stop();
    // With another listener, the program decides about its end.
    if (process.listenerCount(signal) === 0) process.kill(process.pid, signal);
  };
  for (const one of signals) process.on(one, hear);
  return { [Symbol.dispose]: stop };
}

async function closeAll(signal: NodeJS.Signals): Promise<void> {
  debug('%s: closing all devices', signal);
  unwrap(await native().partAll());
}
