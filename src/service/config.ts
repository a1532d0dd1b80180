import { checkKeys, checkName } from '../check.ts';
import { invalid, UblkError, UblkErrorCode } from '../errors.ts';
import { DEVICE_KEYS, toNativeOptions, type DeviceOptions } from '../options.ts';
import { toNativeTarget, type Target } from '../targets/index.ts';
import type { KeyPath } from './json.ts';

/** A device of a {@link ServiceConfig}: the options of {@link createDevice}, but for `name` and `pool`. */
export type DeviceConfig = Omit<DeviceOptions, 'name' | 'pool'>;

/** The devices of a service, for {@link serve} and `ublk serve`. */
export interface ServiceConfig {
  /** The devices by name: 1 to 64 letters, digits, `.`, `_` and `-`. */
  readonly devices: Readonly<Record<string, DeviceConfig>>;
}

/** The options of a device of a service, including the name. */
export type NamedOptions = DeviceOptions & { readonly name: string };

/** An error in a configuration, with its place. */
export interface ConfigProblem {
  readonly path: KeyPath;
  readonly error: UblkError;
}

/**
 * A configuration with its types, for the default export of a module that `ublk serve` reads.
 *
 * @example
 * export default defineConfig({
 *   devices: { data: { target: targets.file('/srv/data.img'), recovery: 'reissue' } },
 * });
 */
export function defineConfig(config: ServiceConfig): ServiceConfig {
  return config;
}

/** Makes the error that {@link checkConfig} throws. */
type Fail = (problem: ConfigProblem) => UblkError;

/**
 * Checks a configuration, before anything is touched.
 *
 * @param fail Makes the error from the problem and its place.
 * @throws {UblkError} The error of `fail`; by default `ERR_UBLK_INVALID_ARGUMENT` with the key.
 */
export function checkConfig(config: unknown, fail: Fail = atKey): NamedOptions[] {
  const at = <T>(path: KeyPath, check: () => T): T => attempt(check, path, fail);
  at([], () => checkKeys(config, 'the configuration', ['devices']));
  const { devices } = config as Partial<ServiceConfig>;
  at(devices === undefined ? [] : ['devices'], () => checkDevices(devices));
  const named = Object.entries(devices as object).map(([name, device]) => {
    at(['devices', name], () => checkName(name, "a device's name"));
    return checkDevice(name, device, fail);
  });
  checkTogether(named, fail);
  return named;
}

function checkDevices(devices: unknown): void {
  if (devices === undefined) {
    throw invalid("there is no 'devices'", 'write "devices": { "data": { "target": … } }');
  }
  checkKeys(devices, 'devices', Object.keys(Object(devices) as object));
  if (Object.keys(devices as object).length > 0) return;
  throw invalid('devices names no device', 'write "devices": { "data": { "target": … } }');
}

const KEYS = DEVICE_KEYS.filter((key) => key !== 'name' && key !== 'pool');

function checkDevice(name: string, device: unknown, fail: Fail): NamedOptions {
  const path = ['devices', name];
  attempt(() => checkKeys(device, `device '${name}'`, KEYS), path, fail);
  const options = device as DeviceConfig;
  if (options.target === undefined) {
    const hint = 'write "target": { "kind": "file", "path": "disk.img" }';
    throw fail({ path, error: invalid(`device '${name}' has no target`, hint) });
  }
  checkTarget(options.target, [...path, 'target'], fail);
  const { target } = options;
  // A check of each key finds the wrong key; a check of all finds keys that exclude each other.
  for (const [key, value] of Object.entries(options)) {
    attempt(() => toNativeOptions({ target, [key]: value }), [...path, key], fail);
  }
  attempt(() => toNativeOptions({ ...options, name }), path, fail);
  return { ...options, name };
}

/** The innermost target that is wrong is what the error is about. */
function checkTarget(target: unknown, path: KeyPath, fail: Fail): void {
  const { kind, targets, target: child, base } = Object(target) as Record<string, unknown>;
  if (typeof kind !== 'string') return;
  if (Array.isArray(targets)) {
    for (const [at, one] of targets.entries()) checkTarget(one, [...path, 'targets', at], fail);
  }
  if (child !== undefined) checkTarget(child, [...path, 'target'], fail);
  if (base !== undefined) checkTarget(base, [...path, 'base'], fail);
  // `createDevice` checks a handler's module.
  if (kind !== 'module') attempt(() => toNativeTarget(target as Target), path, fail);
}

/** Refuses equal numbers and equal files of two devices. */
function checkTogether(devices: readonly NamedOptions[], fail: Fail): void {
  const ids = new Map<number, string>();
  const files = new Map<string, string>();
  for (const { name, id, target } of devices) {
    const other = id === undefined ? undefined : ids.get(id);
    if (id !== undefined && other !== undefined) {
      const error = invalid(
        `id is ${id}, as that of device '${other}'`,
        'give each device its own id',
      );
      throw fail({ path: ['devices', name, 'id'], error });
    }
    if (id !== undefined) ids.set(id, name);
    for (const file of writtenFiles(target)) {
      const owner = files.get(file);
      if (owner !== undefined) {
        const error = invalid(`${file} is served twice, first by device '${owner}'`, SHARED);
        throw fail({ path: ['devices', name, 'target'], error });
      }
      files.set(file, name);
    }
  }
}

const SHARED = 'give each device its own file; to read one file twice, make both devices readOnly';

/** The files that a target locks for itself. */
function writtenFiles(target: unknown): string[] {
  if (typeof target !== 'object' || target === null) return [];
  const { kind, path, readOnly, lock, targets, target: child } = target as Record<string, unknown>;
  const below = [...(Array.isArray(targets) ? targets : []), child].flatMap(writtenFiles);
  const isWritten = readOnly !== true && lock !== false;
  // The base of an overlay is only read.
  const isFile = ['file', 'zoned', 'overlay'].includes(String(kind)) && typeof path === 'string';
  return isFile && isWritten ? [path, ...below] : below;
}

/** Runs a check whose error is about `path`, or about a key below that the message names. */
function attempt<T>(check: () => T, path: KeyPath, fail: Fail): T {
  try {
    return check();
  } catch (error) {
    if (!UblkError.is(error)) throw error;
    throw fail({ path, error });
  }
}

/** An error about a key of a configuration. */
function atKey({ path, error }: ConfigProblem): UblkError {
  const place = path.length === 0 ? 'the configuration' : path.join('.');
  return new UblkError(UblkErrorCode.InvalidArgument, `${place}: ${error.message}`, {
    hint: error.hint ?? `correct ${place}; nothing has been changed`,
  });
}
