import { readFileSync } from 'node:fs';
import { dirname, extname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

import { checkKeys } from '../check.ts';
import { messageOf, UblkError, within, wrong } from '../errors.ts';
import { isHandler } from '../handler/handler.ts';
import { handlerModule, isHandlerModule, type HandlerModule } from '../handler/module.ts';
import { PATH_KEYS } from '../records/plain.ts';
import { blame, configError, type Source } from './blame.ts';
import { checkConfig, type NamedOptions, type ServiceConfig } from './config.ts';
import { readJson } from './json.ts';
import { nameOf } from './keys.ts';
import { ConfigSyntaxError } from './syntax.ts';
import { readToml } from './toml.ts';

const MODULES: readonly string[] = ['.js', '.mjs', '.cjs', '.ts', '.mts', '.cts'];
const READERS = new Map([
  ['.json', readJson],
  ['.toml', readToml],
]);
const NAMES =
  'a configuration is TOML (ublk.toml), JSON (ublk.json), or the default export of a module (ublk.js)';
let loads = 0;

/**
 * Reads a configuration from a file: TOML, JSON, or a module of JavaScript or, where this Node.js imports
 * TypeScript, of TypeScript. Relative paths of targets count from the folder of the file. A module runs
 * anew at each call; modules that the module imports do not.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` with the file, the line (of TOML and JSON), the key
 * and the remedy.
 */
export async function loadConfig(path: string): Promise<NamedOptions[]> {
  return (await loadService(path)).devices;
}

/** What a file declares. */
export interface DeclaredService {
  readonly devices: NamedOptions[];
  /** The address for scrapes of metrics. */
  readonly metrics?: string | undefined;
}

/** Reads all of a configuration, as {@link loadConfig} does. */
export async function loadService(path: string): Promise<DeclaredService> {
  const file = resolve(path);
  const source = await read(file, path);
  const based = rebase(source.value, dirname(file), source);
  const devices = checkConfig(based, (error) => blame(source, error));
  return { devices, metrics: (based as ServiceConfig).metrics };
}

async function read(file: string, shown: string): Promise<Source> {
  const kind = extname(file);
  if (MODULES.includes(kind)) return { file: shown, value: await importDefault(file, shown) };
  const reader = READERS.get(kind);
  if (reader === undefined) {
    throw configError(`${shown}: '${kind || 'no extension'}' is no kind of configuration`, NAMES);
  }
  const text = readText(file, shown);
  try {
    return { file: shown, ...reader(text) };
  } catch (error) {
    if (!(error instanceof ConfigSyntaxError)) throw error;
    const { line, path, message, hint } = error;
    const key = path.length === 0 ? '' : `${nameOf(path)}: `;
    throw configError(`${shown}:${line}: ${key}${message}`, hint);
  }
}

function readText(file: string, shown: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw configError(
      `${shown}: cannot be read: ${messageOf(error)}`,
      `is the path right? ${NAMES}`,
    );
  }
}

async function importDefault(file: string, shown: string): Promise<unknown> {
  loads += 1;
  try {
    const url = `${pathToFileURL(file).href}?ublk=${loads}`;
    const module = (await import(url)) as { default?: unknown };
    if (module.default !== undefined) return module.default;
  } catch (error) {
    const hint = hintFor(error, file);
    throw configError(`${shown}: ${whereOf(error, file)}${messageOf(error)}`, hint, error);
  }
  const hint = 'write: export default defineConfig({ devices: { … } })';
  throw configError(`${shown}: the module has no default export`, hint);
}

/** The line of an error in a module, if the error's stack names the module. */
function whereOf(error: unknown, file: string): string {
  const stack = error instanceof Error ? (error.stack ?? '') : '';
  const [, line] = new RegExp(`${escape(file)}\\S*?:(\\d+)`).exec(stack) ?? [];
  return line === undefined ? '' : `line ${line}: `;
}

function escape(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

function hintFor(error: unknown, file: string): string {
  const { code } = Object(error) as { code?: unknown };
  if (code === 'ERR_UNKNOWN_FILE_EXTENSION') {
    return 'this Node.js imports no TypeScript (22.18 and later do): write the module in JavaScript';
  }
  if (code === 'ERR_MODULE_NOT_FOUND') return `is ${file} there, and what it imports installed?`;
  return 'correct the module: it is run as it would be by node';
}

/** A configuration with absolute paths: relative paths count from `folder`. */
function rebase(config: unknown, folder: string, source: Source): unknown {
  if (!isPlain(config) || !isPlain(config.devices)) return config;
  const devices = Object.entries(config.devices).map(([name, device]) => {
    if (!isPlain(device) || device.target === undefined) return [name, device];
    try {
      const rebase = (): unknown => rebaseTarget(device.target, folder);
      return [name, { ...device, target: within(`devices.${name}.target`, rebase) }];
    } catch (error) {
      throw UblkError.is(error) ? blame(source, error) : error;
    }
  });
  return { ...config, devices: Object.fromEntries(devices) as unknown };
}

/** A target with absolute paths. A handler is code, and resolves its paths by itself. */
function rebaseTarget(target: unknown, folder: string): unknown {
  if (Object.isFrozen(target) && isHandlerModule(target)) return target;
  if (isHandlerModule(target)) return toModule(target, folder);
  return isHandler(target) ? target : rebased(target, folder, '');
}

function rebased(value: unknown, folder: string, key: string): unknown {
  if (typeof value === 'string') {
    const isPath = PATH_KEYS.has(key) && value !== '' && !value.includes('\0');
    return isPath ? resolve(folder, value) : value;
  }
  if (Array.isArray(value)) return value.map((one) => rebased(one, folder, ''));
  if (!isPlain(value)) return value;
  const entries = Object.entries(value).map(([name, one]) => [name, rebased(one, folder, name)]);
  return Object.fromEntries(entries) as unknown;
}

/** A handler's module, from the fields in JSON or TOML. */
function toModule(target: object, folder: string): HandlerModule {
  checkKeys(target, "a handler's module", ['kind', 'url', 'workers', 'data']);
  const { url, workers, data } = target as Record<string, unknown>;
  if (typeof url !== 'string' || url === '') {
    throw wrong(
      'url',
      `is ${JSON.stringify(url)}; it must be a path or a URL`,
      'write "./disk.js"',
    );
  }
  const place = URL.canParse(url) ? url : resolve(folder, url);
  return handlerModule(place, { workers: workers as number | undefined, data });
}

function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
