import { constants } from 'node:os';
import { isMainThread } from 'node:worker_threads';

import { checkKeys } from './check.ts';
import { debug } from './debug.ts';
import { invalid, UblkError, UblkErrorCode, unwrap } from './errors.ts';
import { native } from './native.ts';

/** How {@link closeOnSignals} listens. */
export interface CloseOnSignalsOptions {
  /**
   * The signals that end the program.
   * @default ['SIGINT', 'SIGTERM', 'SIGHUP']
   */
  readonly signals?: readonly NodeJS.Signals[] | undefined;
}

const SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/**
 * Lets Ctrl-C and the like close the devices before they end the program. Without a listener a
 * signal ends a program of Node.js at once, and no code of any library runs: each device without
 * `recovery` is then left behind, dead. This package listens to no signal unless it is told to.
 *
 * At the first signal all devices of the process, the workers' too, end as at the end of the
 * program: those with `recovery` are left to their next server, the others are closed, which waits
 * until the kernel has written back what clients have left in the page cache. Handlers answer
 * meanwhile. Then the signal ends the program as it would have without a listener, unless the
 * program has listeners of its own for it. A second signal does not wait any longer. If a device
 * does not end, a warning says why, and the program serves it on until the next signal.
 *
 * Node.js gives each signal its default action when it starts, also one that its starter ignores: a
 * program that is to outlive its terminal under `nohup` leaves SIGHUP out of `signals` and listens to it
 * itself. SIGKILL cannot be listened to; `ublk list` shows what it leaves behind, and `ublk delete`
 * removes it.
 *
 * @example
 * closeOnSignals();
 * const device = await createDevice({ target: { size: '1GiB', read, write } });
 *
 * @returns What stops listening when it is disposed of.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`; `ERR_UBLK_UNSUPPORTED` in a worker, where Node.js
 * hears no signals.
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
    // A listener of the program's own has heard the signal, and decides.
    if (process.listenerCount(signal) === 0) process.kill(process.pid, signal);
  };
  for (const one of signals) process.on(one, hear);
  return { [Symbol.dispose]: stop };
}

async function closeAll(signal: NodeJS.Signals): Promise<void> {
  debug('%s: closing all devices', signal);
  unwrap(await native().partAll());
}
