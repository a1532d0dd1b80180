import { CommanderError } from 'commander';

import { UblkError, UblkErrorCode } from '../errors.ts';
import { createProgram } from './program.ts';
import { ExitStatus, report } from './report.ts';

/** Runs the `ublk` command. Errors are told on stderr. */
export async function runCli(args: readonly string[]): Promise<number> {
  try {
    await createProgram().parseAsync(args, { from: 'user' });
    // A command that ran but found something amiss (doctor) has set the status itself.
    return Number(process.exitCode ?? ExitStatus.Ok);
  } catch (error) {
    return conclude(error, args.includes('--json'));
  }
}

function conclude(error: unknown, json: boolean): number {
  // Commander has said it already; help that was asked for has exit code 0.
  if (error instanceof CommanderError)
    return error.exitCode === 0 ? ExitStatus.Ok : ExitStatus.Usage;
  if (!UblkError.is(error)) throw error;
  report(error, json);
  return error.code === UblkErrorCode.InvalidArgument ? ExitStatus.Usage : ExitStatus.Failed;
}
