import { UblkError, UblkErrorCode } from '../errors.ts';
import type { OverlayProgress, OverlayTaskOptions } from '../overlay-task.ts';
import { formatSize } from '../size.ts';
import { hearSignals } from './signals.ts';

/**
 * Runs a verb that takes long: with a line of progress where stderr is a terminal, and until SIGINT, SIGTERM
 * or SIGHUP. `verb` names the verb for the error of a cancellation.
 */
export async function withProgress<T>(
  verb: string,
  run: (options: OverlayTaskOptions) => Promise<T>,
): Promise<T> {
  const { first } = hearSignals();
  const ended = new AbortController();
  const cancel = () =>
    ended.abort(new UblkError(UblkErrorCode.Closed, `${verb} was cancelled by a signal`));
  first.addEventListener('abort', cancel, { once: true });
  const shown = process.stderr.isTTY;
  const show = ({ done, total }: OverlayProgress) => {
    const percent = Math.floor((100 * done) / total);
    process.stderr.write(`\r${verb}: ${percent} % of ${formatSize(total)}\u{1b}[K`);
  };
  try {
    return await run({ signal: ended.signal, ...(shown && { onProgress: show }) });
  } finally {
    if (shown) process.stderr.write('\r\u{1b}[K');
    first.removeEventListener('abort', cancel);
  }
}
