import { checkKeys, checkName } from '../check.ts';
import { invalid, UblkError, within, wrong } from '../errors.ts';
import { parseAddress } from '../metrics/address.ts';
import { DEVICE_KEYS, toNativeOptions, type DeviceOptions } from '../options.ts';
import { nameOf, pathOf } from './keys.ts';

/** A device of a {@link ServiceConfig}: the options of {@link createDevice}, but for `name` and `pool`. */
export type DeviceConfig = Omit<DeviceOptions, 'name' | 'pool'>;

/** The devices of a service, for {@link serve} and `ublk serve`. */
export interface ServiceConfig {
  /** The devices by name: 1 to 64 letters, digits, `.`, `_` and `-`. */
  readonly devices: Readonly<Record<string, DeviceConfig>>;
  /**
   * The address at which `ublk serve` answers the scrapes of Prometheus: `127.0.0.1:9760`, or `9760` for
   * the same. {@link serve} takes no address: a program has {@link metrics}.
   * @default no scrapes
   */
  readonly metrics?: string | undefined;
}

/** The options of a device of a service, including the name. */
export type NamedOptions = DeviceOptions & { readonly name: string };

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

/**
 * Checks a configuration, before anything is touched.
 *
 * @param explain Makes the error for people from an error whose `key` is the path of the wrong key.
 * @throws {UblkError} The error of `explain`; by default `ERR_UBLK_INVALID_ARGUMENT` with the key.
 */
export function checkConfig(
  config: unknown,
  explain: (error: UblkError) => UblkError = (error) => atKey(config, error),
): NamedOptions[] {
  try {
    checkKeys(config, 'the configuration', ['devices', 'metrics']);
    const { devices, metrics } = config as Partial<ServiceConfig>;
    if (metrics !== undefined) parseAddress(metrics, 'metrics');
    checkDevices(devices);
    const named = Object.entries(devices as object).map(([name, device]) =>
      within(`devices.${name}`, () => checkDevice(name, device)),
    );
    checkTogether(named);
    return named;
  } catch (error) {
    throw UblkError.is(error) ? explain(error) : error;
  }
}

/**
 * Checks a configuration of a program, which has no use for the keys of `ublk serve`.
 *
 * @throws {UblkError} As {@link checkConfig}; for an address of `metrics` too.
 */
export function checkProgramConfig(config: ServiceConfig): NamedOptions[] {
  const named = checkConfig(config);
  if (config.metrics === undefined) return named;
  const hint = 'leave metrics out; in a program, call metrics() of the package';
  throw wrong('metrics', 'is for ublk serve', hint);
}

function checkDevices(devices: unknown): void {
  if (devices === undefined) throw invalid("there is no 'devices'", EMPTY);
  checkKeys(devices, 'devices', Object.keys(Object(devices) as object), 'devices');
  if (Object.keys(devices as object).length === 0) {
    throw wrong('devices', 'names no device', EMPTY);
  }
}

const EMPTY = 'declare a device by its name in devices, with a target';

const KEYS = DEVICE_KEYS.filter((key) => key !== 'name' && key !== 'pool');

function checkDevice(name: string, device: unknown): NamedOptions {
  checkName(name, 'name');
  checkKeys(device, `device '${name}'`, KEYS);
  const options = device as DeviceConfig;
  if (options.target === undefined) {
    const hint = 'give the device a target: kind "file" and path "disk.img", for example';
    throw invalid(`device '${name}' has no target`, hint, 'target');
  }
  toNativeOptions({ ...options, name });
  return { ...options, name };
}

/** Refuses equal numbers and equal files of two devices. */
function checkTogether(devices: readonly NamedOptions[]): void {
  const ids = new Map<number, string>();
  const files = new Map<string, string>();
  for (const { name, id, target } of devices) {
    const other = id === undefined ? undefined : ids.get(id);
    if (id !== undefined && other !== undefined) {
      const message = `id is ${id}, as that of device '${other}'`;
      throw invalid(message, 'give each device its own id', `devices.${name}.id`);
    }
    if (id !== undefined) ids.set(id, name);
    for (const file of writtenFiles(target)) {
      const owner = files.get(file);
      if (owner !== undefined) {
        const message = `${file} is served twice, first by device '${owner}'`;
        throw invalid(message, SHARED, `devices.${name}.target`);
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

/** An error with the key, as far as the configuration has the key. */
function atKey(config: unknown, { key = '', message, hint }: UblkError): UblkError {
  const place = nameOf(pathOf(config, key)) || 'the configuration';
  const remedy = `correct ${place}; nothing has been changed`;
  return invalid(`${place}: ${message}`, hint ?? remedy, key || undefined);
}
