import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { fstatSync } from 'node:fs';
import type { Readable } from 'node:stream';

/** Holds the starter's process id, so that the second process serves and starts no third process. */
const STARTER = 'UBLK_STARTED_BY';

/** Whether `--background` has started this process. */
export function isInBackground(): boolean {
  return process.env[STARTER] === String(process.ppid);
}

/**
 * Runs the same command in another process, in a new session, until the other process serves and
 * prints a line; then this process ends. This process passes on the output until then, signals to
 * the other process, and the exit status of a server that fails to start.
 */
export async function runInBackground(signal: AbortSignal): Promise<void> {
  const server = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    detached: true,
    stdio: ['ignore', 'pipe', isJournal() ? 'inherit' : 'pipe'],
    env: { ...process.env, [STARTER]: String(process.pid) },
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
    process.exitCode = status ?? 1;
    return;
  }
  server.stdout.destroy();
  server.stderr?.destroy();
  server.unref();
}

/** Whether stderr is the journal of systemd, which also hears what the server says later (systemd.exec(5)). */
function isJournal(): boolean {
  const { dev, ino } = fstatSync(2);
  return process.env['JOURNAL_STREAM'] === `${dev}:${ino}`;
}
