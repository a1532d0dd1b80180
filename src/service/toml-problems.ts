import { parseTOML, type ParseError } from 'toml-eslint-parser';

import {
  ConfigSyntaxError,
  duplicate,
  pathKey,
  type KeyPath,
  type Lines,
  type SyntaxProblem,
} from './syntax.ts';

/** An integer that JavaScript cannot hold. */
export function inexact(value: bigint): SyntaxProblem {
  const hint = 'write a size as text, for example "16TiB"';
  return { message: `${value} is beyond the exact whole numbers, ±2^53`, hint };
}

/**
 * The error for a text that the parser refuses, with the key that the error is about.
 *
 * @param linesOf The lines of the keys in a text that the parser takes.
 */
export function syntaxError(
  error: ParseError,
  toml: string,
  linesOf: (part: string) => Lines,
): ConfigSyntaxError {
  const { lineNumber: line, message } = error;
  const all = toml.split('\n');
  const { path, before } = keyAt(all, line);
  const first = /multiple times/.test(message) && linesOf(before).get(pathKey(path));
  const twice = first && duplicate(String(path.at(-1)), first);
  return new ConfigSyntaxError(line, path, twice || problem(message, (all[line - 1] ?? '').trim()));
}

/** What the parser says, the problem in words, and how to correct the text. */
const PROBLEMS: readonly (readonly [RegExp, string, string])[] = [
  [/string constant/, 'a string has no end', 'write the closing quote'],
  [/table-key/, "a table's name has no end", 'write [devices.NAME] in a line of its own'],
  [/Unterminated array/, "an array ends without ']'", 'close the array with ]'],
  [/Unterminated inline/, "a table ends without '}'", 'close the table with }'],
  [/Expected equal/, "a key has no '='", 'write key = value; keys are letters, digits, - and _'],
  [/Must be a newline/, 'a second statement is in the line', 'write one key = value in each line'],
  [/Unspecified values/, 'a value is missing', 'write a value; an array ends with ]'],
  [/Expected comma/, 'a comma is missing', 'write a comma between two values'],
  [/Trailing comma/, "a comma is before '}'", 'remove the comma'],
  [
    /No newlines/,
    'a table in braces has more than one line',
    'write [devices.NAME.target] instead',
  ],
  [/Leading zeros/, 'a number has a leading zero', 'remove the zero, or write the value in quotes'],
  [/Underscores/, 'a number has a misplaced _', 'write _ between two digits only'],
  [/escape sequence/, 'a string has a wrong escape', 'write \\\\ for a backslash'],
  [/Control characters/, 'a string has a control character', 'write \\t for a tab'],
  [/invalid (date|time)/, 'a date or a time is wrong', 'write the value in double quotes'],
  [/Keys cannot/, 'a key begins or ends with a dot', 'write a word before and after each dot'],
  [/multiple times/, 'a key or a table is there twice', 'remove one'],
];

function problem(said: string, line: string): SyntaxProblem {
  const shown = line.length > 60 ? `${line.slice(0, 60)}…` : line;
  const known = PROBLEMS.find(([pattern]) => pattern.test(said));
  if (known !== undefined) return { message: `${known[1]}: ${shown}`, hint: known[2] };
  if (/^[{}\]]/.test(line)) {
    return {
      message: `'${shown}' is no TOML`,
      hint: 'write [devices.NAME], or rename JSON to .json',
    };
  }
  if (line.startsWith('/'))
    return { message: `'${shown}' is no TOML`, hint: 'begin comments with #' };
  const hint = 'write key = value, with text in double quotes: "64KiB"';
  return { message: `'${shown}' is no TOML`, hint };
}

/** How many lines above the error are looked at for its key. */
const LOOK = 100;

/** The key in or above a line that the parser refuses, and the text before the key's line. */
function keyAt(all: readonly string[], line: number): { path: KeyPath; before: string } {
  for (let at = Math.min(line, all.length) - 1; at >= Math.max(0, line - LOOK); at -= 1) {
    const text = all[at]!;
    const [, header] = /^\s*\[\[?\s*([^\][]+)/.exec(text) ?? [];
    const [, key] = /^\s*([^=#\s][^=#]*?)\s*(?:=|$)/.exec(text) ?? [];
    const before = `${all.slice(0, at).join('\n')}\n`;
    // A key in a string of several lines is none: the text before does not parse.
    const table = tableAt(before);
    if (table === undefined) continue;
    if (header !== undefined) return { path: keysOf(header) ?? [], before };
    if (key !== undefined) return { path: [...table, ...(keysOf(key) ?? [])], before };
    return { path: table, before };
  }
  return { path: [], before: '' };
}

/** The path of the table at the end of a text; absent for a text that is wrong. */
function tableAt(text: string): KeyPath | undefined {
  try {
    const last = parseTOML(text).body[0].body.at(-1);
    if (last?.type === 'TOMLKeyValue') return [];
    return last?.resolvedKey ?? [];
  } catch {
    return undefined;
  }
}

/** The keys in a dotted key. */
function keysOf(text: string): KeyPath | undefined {
  try {
    const [node] = parseTOML(`[${text}]`).body[0].body;
    return node?.type === 'TOMLTable' ? node.resolvedKey : undefined;
  } catch {
    const [, word] = /^([\w.-]*[\w-])/.exec(text) ?? [];
    return word === undefined || word === text ? undefined : keysOf(word);
  }
}
