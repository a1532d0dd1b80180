import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** Tells the second process who has started it, so that it serves and starts no third. */
const STARTER = 'UBLK_STARTED_BY';

/** Whether this process is the one that `--background` has started. */
export function isInBackground(): boolean {
  return process.env[STARTER] === String(process.ppid);
}

/**
 * Runs this very command in another process, of a session of its own, until that prints a line:
 * then it serves, and goes on alone. What it says until then is said here, and if it ends before,
 * this process ends as it did. A signal to this one is handed on.
 */
export async function runInBackground(signal: AbortSignal): Promise<void> {
  const server = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, [STARTER]: String(process.pid) },
  });
  signal.addEventListener('abort', () => server.kill());
  server.stderr.on('data', (text: Buffer) => process.stderr.write(text));
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
  server.stderr.destroy();
  server.unref();
}
