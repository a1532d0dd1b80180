import { CommanderError } from 'commander';

import { invalid, UblkError, UblkErrorCode } from '../errors.ts';
import { createProgram } from './program.ts';
import { ExitStatus, report } from './report.ts';

/** Runs the `ublk` command. Prints errors on stderr. */
export async function runCli(args: readonly string[]): Promise<number> {
  const json = args.includes('--json');
  try {
    await createProgram(json).parseAsync(args, { from: 'user' });
    // A command may set the status without an error (doctor).
    return Number(process.exitCode ?? ExitStatus.Ok);
  } catch (error) {
    return conclude(error, json);
  }
}

function conclude(error: unknown, json: boolean): number {
  if (error instanceof CommanderError) {
    // Requested help is no error, and commander has printed usage errors for people already.
    if (error.exitCode === 0) return ExitStatus.Ok;
    if (json) report(usage(error), json);
    return ExitStatus.Usage;
  }
  if (!UblkError.is(error)) throw error;
  report(error, json);
  return error.code === UblkErrorCode.InvalidArgument ? ExitStatus.Usage : ExitStatus.Failed;
}

/** A usage error of commander as an error of this package. */
function usage({ code, message }: CommanderError): UblkError {
  if (code === 'commander.help') return invalid('a command is missing', 'ublk --help lists them');
  const [text = '', ...more] = message.replace(/^error: /, '').split('\n');
  return invalid(text, more.join(' ') || undefined);
}
