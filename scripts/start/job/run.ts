// Programs of the system.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';

/**
 * What the program printed. Each runs in a session of its own, out of reach of the terminal's
 * Ctrl-C: when the job is interrupted it ends them itself, with `signal`, and then tidies up with
 * others.
 */
export async function run(
  program: string,
  args: readonly string[],
  signal?: AbortSignal,
): Promise<string> {
  signal?.throwIfAborted();
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  const end = () => void child.kill();
  signal?.addEventListener('abort', end);
  try {
    const ended = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
    const [out, err, [code, killed]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      ended,
    ]);
    signal?.throwIfAborted();
    if (code === 0) return out;
    const how = killed ? `was ended by ${killed}` : `failed with status ${code}`;
    throw new Error(
      `${program} ${how}: ${(err.trim() || out.trim()).slice(-2000)}\n(${program} ${args.join(' ')})`,
    );
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Error(`${program} is not installed on this machine`, { cause: error });
  } finally {
    signal?.removeEventListener('abort', end);
  }
}
