import { invalid, UblkError, UblkErrorCode } from '../errors.ts';
import { nameOf, pathOf } from './keys.ts';
import { pathKey, type KeyPath, type Lines } from './syntax.ts';

/** A configuration as it was read from a file. */
export interface Source {
  readonly file: string;
  readonly value: unknown;
  /** The lines of the keys; absent for a module. */
  readonly lines?: Lines;
}

/** An error that names the file, the line, the wrong key and the remedy. */
export function blame(source: Source, { key = '', message, hint }: UblkError): UblkError {
  const path = pathOf(source.value, key);
  const line = lineOf(source.lines, path);
  const place = line === undefined ? source.file : `${source.file}:${line}`;
  const named = path.length === 0 ? '' : `${nameOf(path)}: `;
  const text = `${place}: ${named}${message}`;
  return invalid(text, hint ?? remedy(source.file, line), key || undefined);
}

/** An error of a configuration. */
export function configError(message: string, hint: string, cause?: unknown): UblkError {
  return new UblkError(UblkErrorCode.InvalidArgument, message, { hint, cause });
}

function remedy(file: string, line: number | undefined): string {
  return `correct ${line === undefined ? file : `line ${line} of ${file}`}; nothing has been changed`;
}

function lineOf(lines: Lines | undefined, path: KeyPath): number | undefined {
  if (lines === undefined) return undefined;
  for (let length = path.length; length > 0; length -= 1) {
    const line = lines.get(pathKey(path.slice(0, length)));
    if (line !== undefined) return line;
  }
  return 1;
}
