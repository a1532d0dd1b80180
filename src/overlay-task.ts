import { checkKeys } from './check.ts';
import { unwrap, wrong, type Outcome } from './errors.ts';
import { native, type NativeOverlayTask } from './native.ts';

/** The progress of a verb on an overlay, in bytes. */
export interface OverlayProgress {
  /** Bytes that are done. */
  readonly done: number;
  /** All bytes. */
  readonly total: number;
}

/** Options of verbs on overlays that take long. */
export interface OverlayTaskOptions {
  /** Ends the verb: the promise rejects with `signal.reason`. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Hears of the progress, at most ten times a second, and at the end. An exception ends the verb as `signal`
   * does, and the promise rejects with the exception.
   */
  readonly onProgress?: ((progress: OverlayProgress) => void) | undefined;
}

/** The keys of {@link OverlayTaskOptions}. */
const KEYS = ['signal', 'onProgress'] as const;
const INTERVAL_MS = 100;

/** Checks the options of a verb. */
export function checkTaskOptions(
  options: OverlayTaskOptions,
  verb: string,
  more: readonly string[] = [],
): void {
  checkKeys(options, `the options of ${verb}()`, [...more, ...KEYS]);
  const { signal, onProgress } = options;
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw wrong('signal', 'must be an AbortSignal');
  }
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw wrong('onProgress', 'must be a function');
  }
}

/** Runs a verb of the addon with a task for progress and cancellation. */
export async function runTask<T>(
  { signal, onProgress }: OverlayTaskOptions,
  begin: (task: NativeOverlayTask) => Promise<Outcome<T>>,
): Promise<T> {
  signal?.throwIfAborted();
  const task = native().overlayTask();
  const cancel = () => task.cancel();
  const hearing = new AbortController();
  const report = () => {
    const [done = 0, total = 0] = task.progress();
    if (total === 0 || hearing.signal.aborted) return;
    try {
      onProgress?.({ done, total });
    } catch (error) {
      // Uncaught, the exception would end the process, which may be a server of disks.
      hearing.abort(error);
      task.cancel();
    }
  };
  const timer = onProgress && setInterval(report, INTERVAL_MS);
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    const outcome = await begin(task);
    // A verb that has ended well before the cancellation reached it has done its work.
    if (outcome.failure) signal?.throwIfAborted();
    if (!outcome.failure) report();
    hearing.signal.throwIfAborted();
    return unwrap(outcome);
  } finally {
    clearInterval(timer);
    signal?.removeEventListener('abort', cancel);
  }
}
