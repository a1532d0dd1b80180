import { ExitStatus } from './report.ts';

/** What a write fails with when the reader of its pipe is gone. */
const READER_GONE: readonly (string | undefined)[] = ['EPIPE', 'ERR_STREAM_DESTROYED'];

/**
 * Lets the process live when stdout or stderr cannot be written: a server serves on when the reader
 * of its messages ends, and a command does all that it was asked for. An answer that is lost
 * although somebody waits for it, for example on a full disk, makes the exit status 1.
 */
export function outliveReaders(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', ({ code }: NodeJS.ErrnoException) => {
      if (!READER_GONE.includes(code)) process.exitCode = ExitStatus.Failed;
    });
  }
}
