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

/**
 * The service manager that `env` names, if any. Removes the variables from `env`: only this process
 * may speak to the manager (`NotifyAccess=main`), not the processes that handlers start.
 */
export function serviceManager(
  env: NodeJS.ProcessEnv = process.env,
  send: (address: string, message: string) => void = notify,
): Manager | undefined {
  const { NOTIFY_SOCKET: address, WATCHDOG_USEC: usec, WATCHDOG_PID: pid } = env;
  delete env.NOTIFY_SOCKET;
  delete env.WATCHDOG_USEC;
  delete env.WATCHDOG_PID;
  if (!address) return undefined;
  const watchdogMs = pid === undefined || pid === String(process.pid) ? Number(usec) / 1000 : 0;
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
  return { tell, watchdogMs: watchdogMs > 0 ? watchdogMs : undefined };
}

/** A line break in a text would begin another assignment. */
function oneLine(text: string): string {
  return text.replaceAll(/[\r\n]+/g, ' ');
}

function notify(address: string, message: string): void {
  unwrap(native().notify(address, message));
}
