import { constants } from 'node:os';

/**
 * The note of `bin/ublk` about the signals ignored by the starter: a process id, a colon, and `SigIgn` of
 * `/proc/PID/status`. Node.js resets all signals to the default action before any JavaScript runs.
 */
const NOTE = 'UBLK_IGNORED_SIGNALS';

/** Signals that a process may ignore, apart from the signals needed by Node.js and the kernel. */
const NAMES = [
  'SIGHUP',
  'SIGINT',
  'SIGQUIT',
  'SIGTERM',
  'SIGUSR1',
  'SIGUSR2',
  'SIGALRM',
  'SIGTSTP',
  'SIGTTIN',
  'SIGTTOU',
] as const;

/**
 * The signals ignored by the starter of this process. A note is valid for the named process and for
 * a process started by `--background`.
 */
export function ignoredSignals(
  note: string | undefined = process.env[NOTE],
  pids: readonly number[] = [process.pid, process.ppid],
): readonly NodeJS.Signals[] {
  const [, pid, digits] = /^(\d+):([0-9a-f]{1,16})$/i.exec(note ?? '') ?? [];
  if (digits === undefined || !pids.includes(Number(pid))) return [];
  const mask = BigInt(`0x${digits}`);
  return NAMES.filter((name) => ((mask >> BigInt(constants.signals[name] - 1)) & 1n) === 1n);
}

/** Ignores the signals ignored by the starter of this process, for example after `nohup`. */
export function keepIgnoring(): void {
  for (const name of ignoredSignals()) process.on(name, () => {});
}
