import { checkInteger, checkKeys, checkName } from '../check.ts';
import { toNativeOptions } from '../options.ts';
import { messageOf, UblkError, UblkErrorCode } from '../errors.ts';
import { handlerModule, type HandlerModule } from '../handler/module.ts';
import { toNativeTarget, type Target } from '../targets/index.ts';
import { RECORDED_KEYS, type RecordedOptions, type RecordedTarget } from './plain.ts';

/** The first value in a record; a file that begins otherwise is not a record of this package. */
const FORMAT = 'ublk device record';
/** The version of records that this package writes, and the latest that this package reads. */
const VERSION = 1;

/** What clients of a device were told. Holds as long as the device exists, but for the size. */
export interface Told {
  readonly queues: number;
  readonly depth: number;
  readonly maxIoBytes: number;
  /** In bytes, when the record was written; the kernel knows the size of today. */
  readonly size: number;
  readonly logicalBlockSize: number;
  readonly readOnly: boolean;
}

/** The record of a device with `recovery`: a server writes the record for the next server. */
export interface DeviceRecord {
  /** The boot that the device belongs to, by the kernel's number. */
  readonly boot: string;
  /** Differs for all devices of the boot; see `identity.ts`. */
  readonly instance: string;
  readonly id: number;
  readonly name?: string | undefined;
  /** The server's process. */
  readonly pid: number;
  /** When the server began to serve the device, as ISO 8601. */
  readonly since: string;
  readonly target: RecordedTarget;
  readonly options: RecordedOptions;
  readonly told: Told;
}

const KEYS = ['boot', 'instance', 'id', 'name', 'pid', 'since', 'target', 'options', 'told'];
const TOLD = ['queues', 'depth', 'maxIoBytes', 'size', 'logicalBlockSize', 'readOnly'];

/** A record as text: one line of JSON, so that a record without its last byte is known as cut. */
export function writeRecordText(record: DeviceRecord): string {
  return `${JSON.stringify({ format: FORMAT, version: VERSION, ...record })}\n`;
}

/**
 * Reads the text of a record.
 *
 * @param path Where the text was found, for the error.
 * @throws {UblkError} `ERR_UBLK_BAD_RECORD` for anything but a whole record of a known version.
 */
export function readRecordText(text: string, path: string): DeviceRecord {
  const { format, version, ...record } = parse(text, path);
  if (format !== FORMAT) throw badRecord(path, 'is not a record of ublk', FOREIGN);
  if (version !== VERSION) {
    const later = typeof version === 'number' && version > VERSION;
    const why = `is of version ${JSON.stringify(version)}; this package reads version ${VERSION}`;
    throw badRecord(path, why, later ? LATER : FOREIGN);
  }
  try {
    return checkRecord(record);
  } catch (error) {
    throw badRecord(path, `is damaged: ${messageOf(error)}`, FOREIGN);
  }
}

/** An error that names a record and says why the record cannot be used. */
export function badRecord(path: string, why: string, hint: string = FOREIGN): UblkError {
  return new UblkError(UblkErrorCode.BadRecord, `${path} ${why}`, { hint });
}

const FOREIGN =
  'the file is left as it is; give the target (ublk recover ID file disk.img), or remove the file';
const LATER =
  'recover the device with the version of ublk that wrote the record, or give the target';

function parse(text: string, path: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw badRecord(path, 'is half-written, or no record: its text is not whole JSON');
  }
  if (!text.endsWith('}\n')) throw badRecord(path, 'is half-written: its last line has no end');
  return value as Record<string, unknown>;
}

function checkRecord(value: Record<string, unknown>): DeviceRecord {
  checkKeys(value, 'the record', KEYS);
  const record = value as unknown as DeviceRecord;
  for (const key of ['boot', 'instance', 'since'] as const) {
    if (typeof record[key] !== 'string') throw new TypeError(`${key} must be text`);
  }
  checkInteger(record.id, 'id', 0, 2 ** 31 - 1);
  checkInteger(record.pid, 'pid', 1, 2 ** 31 - 1);
  if (record.name !== undefined) checkName(record.name, 'name');
  checkKeys(record.options, 'options', RECORDED_KEYS);
  checkTold(record.told);
  const target = wholeTarget(record.target) ?? { kind: 'null', size: 4096 };
  toNativeOptions({ ...record.options, target: target as Target });
  return record;
}

function checkTold(told: Told): void {
  checkKeys(told, 'told', TOLD);
  const { readOnly, ...numbers } = told;
  if (typeof readOnly !== 'boolean') throw new TypeError('told.readOnly must be true or false');
  for (const key of TOLD.slice(0, -1)) {
    const value = numbers[key as keyof typeof numbers];
    checkInteger(value, `told.${key}`, 1, Number.MAX_SAFE_INTEGER);
  }
}

/** The target of a record; absent, where the record does not hold the whole target. */
export function wholeTarget(recorded: RecordedTarget): Target | HandlerModule | undefined {
  if (typeof recorded?.needs === 'string') return undefined;
  if (recorded?.kind === 'module') {
    return handlerModule(recorded['url'] as string, { workers: recorded['workers'] as number });
  }
  toNativeTarget(recorded as unknown as Target);
  return recorded as unknown as Target;
}
