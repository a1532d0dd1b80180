// The program that serves the image, run as a user would run it.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import type { Counters } from '../../../src/info.ts';
import type { JobSpec, ServedDevice } from '../protocol.ts';

const PROGRAM = join(import.meta.dirname, '../../../examples/serve-image.js');

export interface Server extends AsyncDisposable {
  device: ServedDevice;
  /** Stops it; what it did. */
  stop(): Promise<Counters>;
}

/** Serves `image` with examples/serve-image.ts. */
export async function serve(
  image: string,
  { queues, buffers }: Pick<JobSpec, 'queues' | 'buffers'>,
  signal: AbortSignal,
): Promise<Server> {
  signal.throwIfAborted();
  const wishes = ['--queues', String(queues), ...(buffers ? ['--buffers', buffers] : [])];
  // Should the job be killed, the server still ends in good order. A session of its own: on Ctrl-C
  // it must go on serving until the device is unmounted.
  const command = ['--pdeathsig', 'TERM', '--', process.execPath, PROGRAM, image, ...wishes];
  const child = spawn('setpriv', command, { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  const ended = once(child, 'close');
  const complaint = text(child.stderr);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const end = () => void child.kill();
  signal.addEventListener('abort', end);
  const first = await lines.next().finally(() => signal.removeEventListener('abort', end));
  if (first.done) {
    await ended;
    signal.throwIfAborted();
    throw new Error(`The image could not be served: ${told(await complaint)}`);
  }
  const stop = async () => {
    const last = await stopChild(child, lines, ended);
    if (last === undefined) {
      throw new Error(`The server did not end in good order: ${told(await complaint)}`);
    }
    return JSON.parse(last) as Counters;
  };
  let stopped: Promise<Counters> | undefined;
  return {
    device: JSON.parse(first.value) as ServedDevice,
    stop: () => (stopped ??= stop()),
    async [Symbol.asyncDispose]() {
      await (stopped ??= stop());
    },
  };
}

async function stopChild(
  child: ChildProcess,
  lines: AsyncIterator<string>,
  ended: Promise<unknown>,
): Promise<string | undefined> {
  child.kill('SIGTERM');
  const last = await lines.next();
  await ended;
  return last.done ? undefined : last.value;
}

/** The message and the hint in what Node prints of an error that nobody caught. */
function told(printed: string): string {
  const message = /^\w*Error: (.+)$/m.exec(printed)?.[1];
  const hint = /^ +hint: (['"`])(.+)\1/m.exec(printed)?.[2];
  if (message === undefined) return printed.trim();
  return hint === undefined ? message : `${message}\nhint: ${hint}`;
}
