import { native } from '../../native.ts';
import type { Manager } from './manager.ts';

/** How often within the manager's limit this process looks at its reactors. */
const LOOKS = 4;

/**
 * Feeds the watchdog of the service manager as long as all reactors of this process take completions,
 * and this event loop turns. A backing store that does not answer stops no reactor: a restart would wait
 * for the same backing store. Says on stderr which reactor stands still.
 */
export function feedWatchdog(
  { tell, watchdogMs }: Manager,
  silentReactors: () => string[] = () => native().silentReactors(),
): Disposable {
  if (watchdogMs === undefined) return { [Symbol.dispose]: () => {} };
  let silent: string[] = [];
  const look = (): void => {
    const now = silentReactors();
    const news = now.filter((name) => !silent.includes(name));
    silent = now;
    if (news.length > 0) {
      process.stderr.write(`${news.join(', ')} does not answer; the watchdog is not fed\n`);
    }
    if (now.length === 0) tell('WATCHDOG=1');
  };
  const timer = setInterval(look, watchdogMs / LOOKS).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
