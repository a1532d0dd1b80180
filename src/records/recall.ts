import { debug } from '../debug.ts';
import { invalid, UblkError } from '../errors.ts';
import type { DeviceInfo } from '../info.ts';
import { inWords } from '../notes.ts';
import { toNative, type DeviceOptions } from '../options.ts';
import type { RecoverOptions } from '../recover.ts';
import { RECALLED_KEYS } from '../serving.ts';
import type { Recordable } from './keep.ts';
import type { RecordedOptions, RecordedTarget } from './plain.ts';
import { badRecord, wholeTarget, type DeviceRecord } from './record.ts';
import { findRecord, FOLDER, recordOf, recordPath } from './store.ts';

/** A recovery whose target is known. */
type Recovery = RecoverOptions & { readonly target: DeviceOptions['target'] };

/** How a device is to be served again. */
export interface Recalled {
  /** The options of the next server. */
  readonly serving: Recovery;
  /** The content of the next server's record. */
  readonly recorded: Recordable;
}

/**
 * The target and the options of a recovery: the given ones, and, without a given target, also the
 * target and the options that the last server has written down.
 *
 * @throws {UblkError} `ERR_UBLK_BAD_RECORD`; `ERR_UBLK_INVALID_ARGUMENT` where nothing names the
 * target.
 */
export function recall(
  info: DeviceInfo,
  options: RecoverOptions,
  folder: string = FOLDER,
): Recalled {
  const { target: given, ...asked } = options;
  if (given !== undefined) {
    const before = readable(info.id, folder);
    const shape = before ? withoutServing(before.options) : shapeOf(info);
    const recorded = { ...shape, ...asked, target: given, name: before?.name };
    return { serving: { ...asked, target: given }, recorded };
  }
  const record = recordToRecover(info, folder);
  const target = targetOf(record, info);
  const serving = { ...recalledServing(record.options, asked), target };
  const recorded = { ...withoutServing(record.options), ...serving, name: record.name };
  return { serving, recorded };
}

/**
 * The record that a device can be recovered from.
 *
 * @throws {UblkError} As {@link recall}.
 */
function recordToRecover(info: DeviceInfo, folder: string): DeviceRecord {
  const { id } = info;
  if (info.recovery === undefined) {
    throw invalid(
      `ublk device ${id} was created without recovery, so that no other server can serve it`,
      `remove it with ublk delete ${id}; devices with the option recovery outlive their server`,
    );
  }
  const record = recordOf(id, folder);
  if (record === undefined) {
    const path = recordPath(id, folder);
    if (findRecord(id, folder)) throw badRecord(path, `is of an earlier device with number ${id}`);
    throw invalid(`there is no record of ublk device ${id} (${path})`, giveTarget(id));
  }
  const other = (['queues', 'depth', 'maxIoBytes', 'logicalBlockSize'] as const).find((key) => {
    return info[key] !== undefined && info[key] !== record.told[key];
  });
  if (other !== undefined) {
    const why = `tells of another device: ${other} is ${info[other]}, not ${record.told[other]}`;
    throw badRecord(recordPath(id, folder), why);
  }
  return record;
}

/**
 * The target in a record, with the device's size of today: the device may have been resized since.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` where the record does not hold the whole target.
 */
function targetOf({ id, target }: DeviceRecord, { size }: DeviceInfo): DeviceOptions['target'] {
  const whole = wholeTarget(sized(target, size));
  if (whole !== undefined) return whole;
  const what = target.kind === 'module' ? "a handler's module" : 'a handler';
  throw invalid(
    `the record of ublk device ${id}, which ${what} answered for, lacks ${target.needs}`,
    `the program that serves the device must give the target: recoverDevice(${id}, { target })`,
  );
}

const RESIZABLE: readonly string[] = ['file', 'null', 'error'];

/** A target with a size of its own gets the size of the device. */
export function sized(target: RecordedTarget, size: number | undefined): RecordedTarget {
  const says = RESIZABLE.includes(target.kind) && target['size'] !== undefined;
  return says && size !== undefined ? { ...target, size } : target;
}

const OF_THREADS: readonly string[] = ['spinUsec', 'threads', 'ringsApart', 'pin', 'affinity'];

/** The recorded options of a server, without given options and options that given options exclude. */
function recalledServing(recorded: RecordedOptions, given: RecoverOptions): RecoverOptions {
  const excluded = new Set<string>();
  // The reactors of a pool have threads of their own.
  if (given.pool !== undefined) for (const key of OF_THREADS) excluded.add(key);
  if (given.affinity !== undefined) excluded.add('pin');
  if (given.pin !== undefined) excluded.add('affinity');
  const keys = RECALLED_KEYS.filter((key) => recorded[key] !== undefined && !excluded.has(key));
  return { ...Object.fromEntries(keys.map((key) => [key, recorded[key]])), ...given };
}

function withoutServing(options: RecordedOptions): RecordedOptions {
  const kept = Object.entries(options).filter(
    ([key]) => !(RECALLED_KEYS as readonly string[]).includes(key),
  );
  return Object.fromEntries(kept);
}

/** The options of a device without a record, as far as the kernel knows the options. */
function shapeOf({ queues, depth, maxIoBytes, recovery }: DeviceInfo): RecordedOptions {
  return { queues, depth, maxIoBytes, recovery };
}

/** The record of a device, if usable: with a given target, nothing depends on the record. */
function readable(id: number, folder: string): DeviceRecord | undefined {
  try {
    return recordOf(id, folder);
  } catch (error) {
    if (!UblkError.is(error)) throw error;
    debug('the record of device %d is not used: %O', id, error);
    return undefined;
  }
}

function giveTarget(id: number): string {
  return `give the target that the device had, for example: ublk recover ${id} file disk.img`;
}

/** The target of a device in words, as the record says; general words without a usable record. */
export function recordedWords(id: number): string {
  const record = readable(id, FOLDER);
  const target = record && wholeTarget(record.target);
  return target === undefined ? 'what it served before' : inWords(toNative(target));
}
