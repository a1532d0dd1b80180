import { debug } from '../../debug.ts';
import { messageOf, unwrap } from '../../errors.ts';
import { native } from '../../native.ts';

/** The service manager that started this process and waits for notifications (`sd_notify(3)`). */
export interface Manager {
  /** Sends lines such as `READY=1`. A manager that does not listen is no error. */
  tell(...lines: string[]): void;
  /** The time without `WATCHDOG=1` after which the manager kills this process; undefined: any. */
  readonly watchdogMs: number | undefined;
}

/** A service manager that the next server of a hand-over finds, too. */
export interface PlacedManager extends Manager {
  readonly place: ManagerPlace;
}

/** Where a service manager listens, and what the manager expects: plain data. */
export interface ManagerPlace {
  readonly address: string;
  readonly watchdogMs?: number | undefined;
}

/**
 * The service manager that `env` names, if any. Removes the variables from `env`: only this process
 * may speak to the manager (`NotifyAccess=main`), not the processes that handlers start.
 */
export function serviceManager(
  env: NodeJS.ProcessEnv = process.env,
  send: (address: string, message: string) => void = notify,
): PlacedManager | undefined {
  const { NOTIFY_SOCKET: address, WATCHDOG_USEC: usec, WATCHDOG_PID: pid } = env;
  delete env.NOTIFY_SOCKET;
  delete env.WATCHDOG_USEC;
  delete env.WATCHDOG_PID;
  if (!address) return undefined;
  const watchdogMs = pid === undefined || pid === String(process.pid) ? Number(usec) / 1000 : 0;
  return managerAt({ address, ...(watchdogMs > 0 && { watchdogMs }) }, send);
}

/** The service manager of the old server of a hand-over, if any. */
export function managerAt(
  place: ManagerPlace | undefined,
  send: (address: string, message: string) => void = notify,
): PlacedManager | undefined {
  if (place === undefined) return undefined;
  const { address, watchdogMs } = place;
  let isHeard = true;
  const tell = (...lines: string[]): void => {
    debug('to the service manager: %o', lines);
    try {
      send(address, lines.map(oneLine).join('\n'));
    } catch (error) {
      if (isHeard) process.stderr.write(`warning: ${messageOf(error)}\n`);
      isHeard = false;
    }
  };
  return { tell, watchdogMs, place };
}

/** A line break in a text would begin another assignment. */
function oneLine(text: string): string {
  return text.replaceAll(/[\r\n]+/g, ' ');
}

function notify(address: string, message: string): void {
  unwrap(native().notify(address, message));
}
