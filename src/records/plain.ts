import { checkAbsolutePath } from '../check.ts';
import { DEVICE_KEYS, type DeviceOptions } from '../options.ts';
import { isHandler } from '../handler/handler.ts';
import { isHandlerModule, type HandlerModule } from '../handler/module.ts';
import type { Target } from '../targets/index.ts';

/** A target in a record: plain JSON. */
export interface RecordedTarget {
  readonly kind: string;
  /** The part of the target that is missing in the record, in words; absent: nothing is missing. */
  readonly needs?: string;
  readonly [key: string]: unknown;
}

/** Options as a record holds options: the part of {@link DeviceOptions} that is plain JSON. */
export type RecordedOptions = Omit<DeviceOptions, 'target' | 'pool' | 'id' | 'name'>;

/**
 * Keys that are never among the recorded options: the record has places of their own for the target, the
 * number and the name, and a pool belongs to a process.
 */
const NOT_OPTIONS: ReadonlySet<string> = new Set(['target', 'pool', 'id', 'name']);
/** The keys of {@link RecordedOptions}. */
export const RECORDED_KEYS: readonly string[] = DEVICE_KEYS.filter((key) => !NOT_OPTIONS.has(key));
/** The keys of targets whose text is a path, which another process may resolve from another folder. */
export const PATH_KEYS: ReadonlySet<string> = new Set([
  'path',
  'state',
  'history',
  'conf',
  'keyring',
  'authorities',
  'tlsCertificates',
]);
/** The keys of targets that are meant for one start alone. */
export const ONCE: ReadonlySet<string> = new Set(['create', 'loseUnflushed']);

/**
 * A target as a record holds the target. Functions cannot be written down, and the data of a handler's
 * module may hold secrets: the record then names the missing part. `create` is left out: a file of zones
 * or metadata that is missing later is lost, and an empty new file would hide the loss. `loseUnflushed`
 * would hide a loss, too.
 */
export function recordTarget(target: DeviceOptions['target']): RecordedTarget {
  if (isHandlerModule(target)) return recordModule(target);
  if (isHandler(target)) return { kind: 'handler', needs: 'its JavaScript functions' };
  return plain(target as Target, '') as RecordedTarget;
}

function recordModule({ url, workers, data }: HandlerModule): RecordedTarget {
  const { protocol, search } = new URL(url);
  if (protocol !== 'file:' || search !== '') return { kind: 'module', needs: "its module's URL" };
  const known = { kind: 'module', url, workers };
  return data === undefined ? known : { ...known, needs: 'the data of its module' };
}

/** The options of a device as a record holds options. */
export function recordOptions(options: Partial<DeviceOptions>): RecordedOptions {
  const kept = Object.entries(options).filter(([key]) => !NOT_OPTIONS.has(key));
  const recorded = plain(Object.fromEntries(kept), '') as RecordedOptions;
  if (options.pool === undefined) return recorded;
  // With a pool, `threads` counts parts of the pool's reactors.
  const { threads: _parts, ...rest } = recorded;
  return rest;
}

/** A value as JSON: sizes as numbers, paths absolute, absent values left out. */
function plain(value: unknown, key: string): unknown {
  if (PATH_KEYS.has(key)) return checkAbsolutePath(value, key);
  if (typeof value === 'bigint') return Number(value);
  if (Array.isArray(value)) return value.map((one) => plain(one, ''));
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([name, one]) => {
    return one !== undefined && !ONCE.has(name);
  });
  return Object.fromEntries(entries.map(([name, one]) => [name, plain(one, name)]));
}
