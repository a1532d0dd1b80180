import { constants } from 'node:os';

/**
 * Where `bin/ublk` notes the signals that its starter ignores: its process id, a colon, and `SigIgn` of
 * `/proc/PID/status`. Node itself gives each signal its default action before any JavaScript runs.
 */
const NOTE = 'UBLK_IGNORED_SIGNALS';

/** Signals that may be ignored, and that neither Node nor the kernel needs. */
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
 * The signals that the starter of this process ignores. A note counts for the process that it names,
 * and for the one that this process starts with `--background`.
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

/** Ignores what the starter of this process ignores, for example after `nohup`. */
export function keepIgnoring(): void {
  for (const name of ignoredSignals()) process.on(name, () => {});
}
