import { statSync } from 'node:fs';

import { isHandler } from '../handler/handler.ts';
import { isHandlerModule } from '../handler/module.ts';
import { toNativeOptions, type DeviceOptions } from '../options.ts';
import { formatSize, parseSize } from '../size.ts';
import type { Target } from '../targets/index.ts';

/** A difference of two devices: the option, and both values. */
export interface Difference {
  /** The option by the name in the native core, for example `depth` or `target.chunk`. */
  readonly key: string;
  readonly text: string;
}

/** The options of a device as far as they can be compared. */
export type Comparable = Omit<DeviceOptions, 'target' | 'name'> & {
  /** Absent: unknown. */
  readonly target?: DeviceOptions['target'] | undefined;
};

/** The differences between the options of a device and the wanted options, but for the `id`. */
export function differences(before: Comparable, now: DeviceOptions): Difference[] {
  const isKnown = before.target !== undefined;
  const was = flatten(toNativeOptions({ ...before, target: before.target ?? now.target }));
  const is = flatten(toNativeOptions(now));
  const keys = [...new Set([...was.keys(), ...is.keys()])].filter(
    (key) => key !== 'id' && was.get(key) !== is.get(key),
  );
  const shown = (value: string | undefined): string => value ?? 'the default';
  const found = keys.map((key) => {
    return { key, text: `${key} was ${shown(was.get(key))} and is ${shown(is.get(key))}` };
  });
  if (!isKnown || urlOf(before.target) === urlOf(now.target)) return found;
  return [...found, { key: 'target.url', text: 'the module of the handler is another' }];
}

function flatten(value: object, prefix = ''): Map<string, string | undefined> {
  const all = new Map<string, string | undefined>();
  for (const [key, inner] of Object.entries(value) as [string, unknown][]) {
    const name = prefix === '' ? key : `${prefix}.${key}`;
    if (typeof inner === 'object' && inner !== null && !isList(inner)) {
      for (const [below, text] of flatten(inner, name)) all.set(below, text);
    } else all.set(name, JSON.stringify(inner));
  }
  return all;
}

/** A list of CPUs or modes is one value. */
function isList(value: object): boolean {
  return Array.isArray(value) && value.every((one) => typeof one !== 'object');
}

function urlOf(target: unknown): string | undefined {
  return isHandlerModule(target) ? target.url : undefined;
}

/**
 * The size of a device with this target, in bytes: the size in the target, or the size of the file.
 * Absent, where the size is known only when the target is opened.
 *
 * @param block The logical block size of the device; bytes that do not fill a last block are not used.
 */
export function wantedSize(target: DeviceOptions['target'], block: number): number | undefined {
  if (isHandler(target) || isHandlerModule(target)) return undefined;
  const { kind, size, path, integrity } = target as Target & {
    readonly size?: number;
    readonly path?: string;
    readonly integrity?: object;
  };
  if (kind !== 'file' && kind !== 'null') return undefined;
  if (integrity !== undefined) return undefined;
  if (size !== undefined) return wholeBlocks(parseSize(size), block);
  const stat = path === undefined ? undefined : statSync(path, { throwIfNoEntry: false });
  return stat?.isFile() ? wholeBlocks(stat.size, block) : undefined;
}

function wholeBlocks(size: number, block: number): number {
  return size - (size % block);
}

/** A size that changes, in words. */
export function resizedText(from: number, to: number): string {
  return `the size was ${formatSize(from)} and is ${formatSize(to)}`;
}
