import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';

import { messageOf, UblkError } from '../errors.ts';
import { bootId, instanceOf } from './identity.ts';
import { badRecord, readRecordText, writeRecordText, type DeviceRecord } from './record.ts';

/** Where records lie, beside the layouts that the native core writes: in memory, for root alone. */
export const FOLDER = '/run/ublk';

/** A record that was found: its content, or the reason why the record cannot be used. */
export interface FoundRecord {
  /** The number in the name of the file. */
  readonly id: number;
  readonly path: string;
  /** Absent when there is a `problem`. */
  readonly record?: DeviceRecord;
  readonly problem?: UblkError;
}

/** Where the record of a device lies. */
export function recordPath(id: number, folder: string = FOLDER): string {
  return `${folder}/${id}.json`;
}

/** Where a record is written before the record is renamed into its place. */
function draftOf(path: string): string {
  return `${path}.draft`;
}

/**
 * Writes a record so that a reader, also after a crash at any point, finds the old or the new record.
 * Replaces a record that ublk has written during this boot, and no other file.
 *
 * @throws {UblkError} `ERR_UBLK_BAD_RECORD` where another file is in the record's place; errors of the
 * file system.
 */
export function writeRecord(record: DeviceRecord, folder: string = FOLDER): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  findRecord(record.id, folder);
  const path = recordPath(record.id, folder);
  const draft = draftOf(path);
  // Removes the draft of a killed server, or a link, which the new draft must not follow.
  rmSync(draft, { force: true });
  try {
    writeDurably(draft, writeRecordText(record));
    renameSync(draft, path);
  } catch (error) {
    rmSync(draft, { force: true });
    throw error;
  }
  const directory = openSync(folder, 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

function writeDurably(path: string, text: string): void {
  const file = openSync(path, 'wx', 0o600);
  try {
    let rest = Buffer.from(text);
    while (rest.length > 0) rest = rest.subarray(writeSync(file, rest));
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/**
 * The record under the number of a device, whether the device exists or not; nothing, where there is
 * no such file.
 *
 * @throws {UblkError} `ERR_UBLK_BAD_RECORD` where the file is not a whole record of a known version
 * and of this boot, or where others than root and this user could have written the file.
 */
export function findRecord(id: number, folder: string = FOLDER): DeviceRecord | undefined {
  const path = recordPath(id, folder);
  const text = readTrusted(path);
  if (text === undefined) return undefined;
  const record = readRecordText(text, path);
  if (record.id !== id) throw badRecord(path, `is the record of device ${record.id}`);
  if (record.boot !== bootId()) {
    throw badRecord(path, `is of another boot (${record.boot}), and so is its device`);
  }
  return record;
}

/**
 * The record of the device that has this number now; nothing, where there is none.
 *
 * @throws {UblkError} `ERR_UBLK_BAD_RECORD`, as {@link findRecord}.
 */
export function recordOf(id: number, folder: string = FOLDER): DeviceRecord | undefined {
  const record = findRecord(id, folder);
  return record?.instance === instanceOf(id) ? record : undefined;
}

/** The text of a file that root or this user has written; nothing, where there is no file. */
function readTrusted(path: string): string | undefined {
  let file: number;
  try {
    file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw badRecord(path, `cannot be read: ${messageOf(error)}`);
  }
  try {
    const stat = fstatSync(file);
    if (!stat.isFile()) throw badRecord(path, 'is not a regular file');
    const isTrusted = stat.uid === 0 || stat.uid === process.getuid?.();
    if (!isTrusted || (stat.mode & 0o022) !== 0) {
      throw badRecord(
        path,
        `can be changed by others (user ${stat.uid}, mode ${octal(stat.mode)})`,
      );
    }
    return readFileSync(file, 'utf8');
  } finally {
    closeSync(file);
  }
}

function octal(mode: number): string {
  return (mode & 0o7777).toString(8);
}

/** All records, in the order of their numbers, usable or not. */
export function listRecords(folder: string = FOLDER): FoundRecord[] {
  const ids = namesIn(folder).flatMap((name) => {
    const [, digits] = /^(\d{1,10})\.json$/.exec(name) ?? [];
    return digits === undefined ? [] : [Number(digits)];
  });
  return ids.sort((a, b) => a - b).flatMap((id) => found(id, folder) ?? []);
}

function found(id: number, folder: string): FoundRecord | undefined {
  const path = recordPath(id, folder);
  try {
    const record = findRecord(id, folder);
    // A record that was removed meanwhile is none.
    return record && { id, path, record };
  } catch (error) {
    if (!UblkError.is(error)) throw error;
    return { id, path, problem: error };
  }
}

/** A user who is not root may not look into the folder of root's records. */
function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'EACCES') return [];
    throw error;
  }
}

/** Removes the record of one instance of a device; leaves any other file in its place alone. */
export function removeRecord(id: number, instance: string, folder: string = FOLDER): void {
  const path = recordPath(id, folder);
  const { record } = found(id, folder) ?? {};
  if (record?.instance === instance) rmSync(path, { force: true });
  // Of a server of this device that was killed; another server of the number writes one anew.
  rmSync(draftOf(path), { force: true });
}
