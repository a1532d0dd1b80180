import { CommanderError } from 'commander';

import { UblkError, UblkErrorCode } from '../errors.ts';
import { createProgram } from './program.ts';

/** What the command ends with. */
export const ExitStatus = { Ok: 0, Failed: 1, Usage: 2 } as const;

/** Runs the `ublk` command. Errors are told on stderr. */
export async function runCli(args: readonly string[]): Promise<number> {
  try {
    await createProgram().parseAsync(args, { from: 'user' });
    // A command that ran but found something amiss (doctor) has set the status itself.
    return Number(process.exitCode ?? ExitStatus.Ok);
  } catch (error) {
    return report(error, args.includes('--json'));
  }
}

function report(error: unknown, json: boolean): number {
  // Commander has said it already; help that was asked for has exit code 0.
  if (error instanceof CommanderError)
    return error.exitCode === 0 ? ExitStatus.Ok : ExitStatus.Usage;
  if (!UblkError.is(error)) throw error;
  process.stderr.write(json ? `${JSON.stringify({ error: asData(error) })}\n` : asText(error));
  return error.code === UblkErrorCode.InvalidArgument ? ExitStatus.Usage : ExitStatus.Failed;
}

function asData({ code, message, errno, syscall, hint }: UblkError): object {
  return { code, message, errno, syscall, hint };
}

function asText({ code, message, hint }: UblkError): string {
  return `error: ${message} (${code})\n${hint === undefined ? '' : `hint: ${hint}\n`}`;
}
