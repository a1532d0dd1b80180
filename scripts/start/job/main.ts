// The job as a program: the spec as its argument, messages as lines of JSON on stdout. It is
// compiled before it runs, since a guest without hardware virtualisation is slow to start.

import type { JobSpec, Message } from '../protocol.ts';
import { runJob } from './job.ts';

const stop = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => stop.abort(new Error(`ended by ${name}`)));
}
// Whoever started this is gone: nobody would hear the result.
process.stdout.on('error', (error) => stop.abort(error));

const tell = (message: Message) => void process.stdout.write(`${JSON.stringify(message)}\n`);

try {
  const spec = JSON.parse(process.argv[2] ?? '') as JobSpec;
  tell({ hello: true });
  const result = await runJob(
    spec,
    {
      progress: (step, progress) => tell({ step, progress }),
      done: (step, done) => tell({ step, done }),
    },
    stop.signal,
  );
  tell({ result });
} catch (error) {
  // Ended as it was told to, and in good order: that is no news.
  if (error !== stop.signal.reason) tell({ failed: describe(error) });
  process.exitCode = 1;
}

/** The first cause; what failed while tidying up after it comes second. */
function describe(error: unknown): string {
  const { suppressed, error: later } = error as { suppressed?: unknown; error?: unknown };
  if (suppressed === undefined) return error instanceof Error ? error.message : String(error);
  return `${describe(suppressed)}\nThen, tidying up: ${describe(later)}`;
}
