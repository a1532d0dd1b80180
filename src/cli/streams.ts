import { ExitStatus } from './report.ts';

/** The error of a write to a pipe without a reader. */
const READER_GONE: readonly (string | undefined)[] = ['EPIPE', 'ERR_STREAM_DESTROYED'];

/**
 * Keeps the process alive when writes to stdout or stderr fail: a server continues after the end of the
 * reader of its messages, and a command finishes its work. A lost answer, for example on a full disk,
 * makes the exit status 1.
 */
export function outliveReaders(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', ({ code }: NodeJS.ErrnoException) => {
      if (!READER_GONE.includes(code)) process.exitCode = ExitStatus.Failed;
    });
  }
}
