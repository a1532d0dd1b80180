// The program of a worker thread that serves queues of a device; `pool.ts` starts it.
import { parentPort, workerData } from 'node:worker_threads';

import type { UblkError } from '../errors.ts';
import { native } from '../native.ts';
import { checkHandler, isHandler, type CheckedHandler } from './handler.ts';
import { HandlerQueue } from './queue.ts';
import type { Handler } from './types.ts';
import { serveHot } from './hot.ts';
import { toMessage, type Assignment, type FromWorker, type WorkerStart } from './messages.ts';

const port = parentPort!;
const tell = (message: FromWorker): void => port.postMessage(message);

try {
  const checked = checkHandler(await load(workerData as WorkerStart));
  // Listening keeps this thread alive, until it is terminated.
  port.on('message', (assignment: Assignment) => serve(checked, assignment));
  const { methods: _ours, ...shape } = checked;
  tell({ shape });
} catch (error) {
  tell({ failure: toMessage(error) });
}

async function load({ url, data }: WorkerStart): Promise<Handler> {
  const { default: exported } = (await import(url)) as { default?: unknown };
  if (typeof exported !== 'function' || isHandler(exported)) return exported as Handler;
  return (await (exported as (data: unknown) => unknown)(data)) as Handler;
}

function serve(checked: CheckedHandler, { bridge, queues, depth }: Assignment): void {
  const { methods, backends } = checked;
  const warn = (warning: UblkError): void => tell({ warning: toMessage(warning) });
  for (const queue of queues) {
    let bell: (() => void) | undefined;
    const channel = native().openChannel(bridge, queue, () => bell?.());
    const served = new HandlerQueue(channel, { queue, depth, methods, backends, warn });
    // Only who has a single queue can sleep in it.
    bell = queues.length === 1 ? serveHot(channel, served) : served.serve;
    bell();
  }
  tell({ serving: true });
}
