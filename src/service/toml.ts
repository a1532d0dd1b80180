import { ParseError, parseTOML, type AST } from 'toml-eslint-parser';

import {
  ConfigSyntaxError,
  DEEPEST,
  pathKey,
  tooDeep,
  type KeyPath,
  type Lines,
} from './syntax.ts';
import { inexact, syntaxError } from './toml-problems.ts';

/**
 * Reads TOML 1.0, with the line of each key and element.
 *
 * @throws {ConfigSyntaxError} The first error of the text.
 */
export function readToml(text: string): { readonly value: unknown; readonly lines: Lines } {
  const toml = text.replace(/^\uFEFF/, '');
  try {
    return read(toml);
  } catch (error) {
    if (error instanceof ParseError) throw syntaxError(error, toml, (part) => read(part).lines);
    throw error;
  }
}

/** A table while it is read. */
type Table = Map<string, unknown>;

function read(toml: string): { readonly value: unknown; readonly lines: Lines } {
  const lines = new Map<string, number>();
  const root: Table = new Map();
  for (const node of parseTOML(toml).body[0].body) {
    if (node.type === 'TOMLKeyValue') put(root, [], node, lines);
    else {
      const table = reach(root, [], node.resolvedKey, node.loc.start.line, lines) as Table;
      for (const one of node.body) put(table, node.resolvedKey, one, lines);
    }
  }
  return { value: plain(root), lines };
}

/** Puts a key and its value into `table`, whose path is `at`. */
function put(table: Table, at: KeyPath, node: AST.TOMLKeyValue, lines: Map<string, number>): void {
  const { line } = node.loc.start;
  const keys = node.key.keys.map((key) => (key.type === 'TOMLBare' ? key.name : key.value));
  const place = [...at, ...keys];
  const parent = reach(table, at, keys.slice(0, -1), line, lines) as Table;
  note(place, line, lines);
  parent.set(keys.at(-1)!, valueOf(node.value, place, lines));
}

/** The table or array below `from` with the given keys; makes what is missing. */
function reach(
  from: Table,
  at: KeyPath,
  keys: KeyPath,
  line: number,
  lines: Map<string, number>,
): unknown {
  let found: unknown = from;
  for (const [index, key] of keys.entries()) {
    const missing = (): unknown => (typeof keys[index + 1] === 'number' ? [] : new Map());
    note([...at, ...keys.slice(0, index + 1)], line, lines);
    found = Array.isArray(found)
      ? (found[key as number] ??= missing())
      : child(found as Table, String(key), missing);
  }
  return found;
}

function child(table: Table, key: string, missing: () => unknown): unknown {
  if (!table.has(key)) table.set(key, missing());
  return table.get(key);
}

function valueOf(node: AST.TOMLContentNode, at: KeyPath, lines: Map<string, number>): unknown {
  const { line } = node.loc.start;
  switch (node.type) {
    case 'TOMLArray':
      return node.elements.map((element, index) => {
        const place = [...at, index];
        note(place, element.loc.start.line, lines);
        return valueOf(element, place, lines);
      });
    case 'TOMLInlineTable': {
      const table: Table = new Map();
      for (const one of node.body) put(table, at, one, lines);
      return table;
    }
    default:
      if (node.kind !== 'integer' || Number.isSafeInteger(node.value)) return node.value;
      throw new ConfigSyntaxError(line, at, inexact(node.bigint));
  }
}

function note(place: KeyPath, line: number, lines: Map<string, number>): void {
  if (place.length > DEEPEST) throw new ConfigSyntaxError(line, place, tooDeep());
  const key = pathKey(place);
  if (!lines.has(key)) lines.set(key, line);
}

/** Tables as objects, in which `__proto__` is a key as any other. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (!(value instanceof Map)) return value;
  return Object.fromEntries([...value].map(([key, inner]) => [key as string, plain(inner)]));
}
