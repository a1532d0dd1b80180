import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { fstatSync } from 'node:fs';
import type { Readable } from 'node:stream';

/** Tells the second process that it serves, and starts no third process. */
const STARTED = 'UBLK_IN_BACKGROUND';

const isStarted = process.env[STARTED] !== undefined;
// Processes that the server starts are none of ours.
delete process.env[STARTED];

/** Whether `--background` has started this process. */
export function isInBackground(): boolean {
  return isStarted;
}

/**
 * Runs the same command in another process, in a new session, until the other process serves and
 * prints a line; then this process ends. This process passes on the output until then, signals to
 * the other process, and the exit status of a server that fails to start.
 *
 * The other process of a command of systemd (`ExecReload=`) is a child of systemd from the start: as a main
 * process, systemd lets only its own children end in order. Signals and exit status are not passed on then.
 */
export async function runInBackground(signal: AbortSignal): Promise<void> {
  const command = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  const isOrphan = process.ppid === SYSTEMD;
  const [program, ...args] = isOrphan ? [...ORPHANED, ...command] : command;
  const server = spawn(program!, args, {
    detached: true,
    stdio: ['ignore', 'pipe', isJournal() ? 'inherit' : 'pipe'],
    env: { ...process.env, [STARTED]: '1' },
  }) as ChildProcessByStdio<null, Readable, Readable | null>;
  signal.addEventListener('abort', () => server.kill());
  server.stderr?.on('data', (text: Buffer) => process.stderr.write(text));
  let said = '';
  server.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text;
    if (said.includes('\n')) server.stdout.emit('ready');
  });
  const ended = once(server, 'close');
  await Promise.race([once(server.stdout, 'ready'), ended]);
  process.stdout.write(said);
  if (!said.includes('\n')) {
    const [status] = (await ended) as [number | null];
    process.exitCode = isOrphan ? 1 : (status ?? 1);
    return;
  }
  server.stdout.destroy();
  server.stderr?.destroy();
  server.unref();
}

/** The process of systemd. */
const SYSTEMD = 1;
/** Starts a program as a child of the system's first process; of util-linux, as systemd needs it. */
const ORPHANED = ['setsid', '--fork'];

/** Whether stderr is the journal of systemd, which also hears what the server says later (systemd.exec(5)). */
function isJournal(): boolean {
  const { dev, ino } = fstatSync(2);
  return process.env['JOURNAL_STREAM'] === `${dev}:${ino}`;
}
