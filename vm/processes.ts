// Programs that must not outlive this process.

import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';

export interface Program extends AsyncDisposable {
  name: string;
  /** What it wrote to its stderr, for error messages. */
  stderr(): string;
  /** Settles when the program has ended. */
  ended: Promise<void>;
  kill(): void;
}

/**
 * Starts a program that the kernel kills when this process dies, even by SIGKILL. It gets a session
 * of its own, out of reach of the terminal's Ctrl-C, unless it talks to the `terminal` itself.
 */
export function start(
  name: string,
  args: readonly string[],
  { terminal = false }: { terminal?: boolean } = {},
): Program {
  const out = terminal ? 'inherit' : 'ignore';
  const stdio: StdioOptions = [out, out, 'pipe'];
  const command = ['--pdeathsig', 'KILL', '--', name, ...args];
  const child = spawn('setpriv', command, { stdio, detached: !terminal });
  let stderr = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-4096);
  });
  const ended = new Promise<void>((resolve) => {
    child.once('close', () => resolve());
    child.once('error', (error) => {
      stderr += error.message;
      resolve();
    });
  });
  return {
    name,
    stderr: () => stderr.trim(),
    ended,
    kill: () => void child.kill('SIGKILL'),
    async [Symbol.asyncDispose]() {
      stop(child, terminal);
      await ended;
    },
  };
}

/** QEMU gives a terminal back as it was only when it may end by itself. */
function stop(child: ChildProcess, terminal: boolean): void {
  if (child.exitCode === null && child.signalCode === null) {
    child.kill(terminal ? 'SIGTERM' : 'SIGKILL');
  }
}
