// The program of a worker thread for queues of a device, started by `pool.ts`.
import { parentPort, workerData } from 'node:worker_threads';

import { unwrap, type UblkError } from '../errors.ts';
import { native } from '../native.ts';
import { checkHandler, isHandler, type CheckedHandler } from './handler.ts';
import { HandlerQueue } from './queue.ts';
import type { Handler } from './types.ts';
import { serveHot } from './hot.ts';
import {
  toMessage,
  type Assignment,
  type FromWorker,
  type ToWorker,
  type WorkerStart,
} from './messages.ts';
import { resumeOne, suspendOne } from './state.ts';

const port = parentPort!;
const tell = (message: FromWorker): void => port.postMessage(message);

try {
  const handler = await load(workerData as WorkerStart);
  const checked = checkHandler(handler);
  // The listener keeps this thread alive until the pool terminates the thread.
  port.on('message', (message: ToWorker) => {
    obey(handler, checked, message).catch((error: unknown) => tell({ failure: toMessage(error) }));
  });
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

async function obey(handler: Handler, checked: CheckedHandler, message: ToWorker): Promise<void> {
  if ('queues' in message) serve(checked, message);
  else if ('suspend' in message) tell({ suspended: await suspendOne(handler) });
  else {
    await resumeOne(handler, message.resume);
    tell({ resumed: true });
  }
}

function serve(checked: CheckedHandler, { bridge, queues, depth, spinUsec }: Assignment): void {
  const { methods, mapped, backends, zoneSize } = checked;
  const warn = (warning: UblkError): void => tell({ warning: toMessage(warning) });
  for (const queue of queues) {
    let bell: (() => void) | undefined;
    // Only a thread with a single queue can look for requests and sleep in the addon.
    const alone = queues.length === 1;
    const spin = alone ? spinUsec : 0;
    const channel = unwrap(native().openChannel(bridge, queue, spin, () => bell?.()));
    const options = { queue, depth, methods, mapped, backends, zoneSize, warn };
    const served = new HandlerQueue(channel, options);
    bell = alone ? serveHot(channel, served) : served.serve;
    bell();
  }
  tell({ serving: true });
}
