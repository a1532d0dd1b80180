import type { UblkError } from '../errors.ts';

/** The exit statuses of the command. */
export const ExitStatus = { Ok: 0, Failed: 1, Usage: 2, Unsound: 4 } as const;

/** Prints an error on stderr: as a line of JSON for scripts, or as text for people. */
export function report(error: UblkError, json: boolean): void {
  process.stderr.write(json ? `${JSON.stringify({ error: asData(error) })}\n` : asText(error));
}

function asData({ code, message, errno, syscall, hint }: UblkError): object {
  return { code, message, errno, syscall, hint };
}

function asText({ code, message, hint }: UblkError): string {
  return `error: ${message} (${code})\n${hint === undefined ? '' : `hint: ${hint}\n`}`;
}
