import { UblkError, UblkErrorCode } from '../errors.ts';
import type { ConfigProblem } from './config.ts';
import { pathKey, type KeyPath, type Lines } from './json.ts';

/** A configuration as it was read from a file. */
export interface Source {
  readonly file: string;
  readonly value: unknown;
  /** The lines of the keys; absent for a module. */
  readonly lines?: Lines;
}

/** An error that names the file, the line, the wrong key and the remedy. */
export function blame(source: Source, { path, error }: ConfigProblem): UblkError {
  const key = [...path, ...keyBelow(valueAt(source.value, path), error.message)];
  const line = lineOf(source.lines, key);
  const place = line === undefined ? source.file : `${source.file}:${line}`;
  const named = key.length === 0 ? '' : `${nameOf(key)}: `;
  return configError(`${place}: ${named}${error.message}`, error.hint ?? remedy(source.file, line));
}

/** An error of a configuration. */
export function configError(message: string, hint: string, cause?: unknown): UblkError {
  return new UblkError(UblkErrorCode.InvalidArgument, message, { hint, cause });
}

function remedy(file: string, line: number | undefined): string {
  return `correct ${line === undefined ? file : `line ${line} of ${file}`}; nothing has been changed`;
}

/** The key that a message is about, as a path from the value that was checked. */
function keyBelow(value: unknown, message: string): KeyPath {
  const [, unknown] = /has no '([^']+)'/.exec(message) ?? [];
  const [, dotted] =
    /^([\w.]+)(?:\[\d+\]| '[^']*'| and \w+)? (?:is|must|has|can|exclude)\b/.exec(message) ?? [];
  const word = message.startsWith('there is no target of kind') ? 'kind' : (unknown ?? dotted);
  return (word !== undefined && shortestPath(value, word.split('.').at(-1)!)) || [];
}

/** The path to a key with this name that has the fewest steps. */
function shortestPath(value: unknown, name: string): KeyPath | undefined {
  let level: { readonly path: KeyPath; readonly value: unknown }[] = [{ path: [], value }];
  while (level.length > 0) {
    const below = level.flatMap(({ path, value }) => {
      if (typeof value !== 'object' || value === null) return [];
      const isArray = Array.isArray(value);
      return Object.entries(value).map(([key, inner]) => ({
        path: [...path, isArray ? Number(key) : key],
        value: inner as unknown,
      }));
    });
    const found = below.find(({ path }) => path.at(-1) === name);
    if (found !== undefined) return found.path;
    level = below;
  }
  return undefined;
}

function valueAt(root: unknown, path: KeyPath): unknown {
  let value = root;
  for (const key of path) value = (Object(value) as Record<string | number, unknown>)[key];
  return value;
}

function lineOf(lines: Lines | undefined, path: KeyPath): number | undefined {
  if (lines === undefined) return undefined;
  for (let length = path.length; length > 0; length -= 1) {
    const line = lines.get(pathKey(path.slice(0, length)));
    if (line !== undefined) return line;
  }
  return 1;
}

/** A path for people: `devices.data.target.targets[0].path`. */
export function nameOf(path: KeyPath): string {
  const [first = '', ...rest] = path;
  return rest.reduce<string>(
    (name, key) => (typeof key === 'number' ? `${name}[${key}]` : `${name}.${key}`),
    String(first),
  );
}
