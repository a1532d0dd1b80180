import { checkBoolean, checkInteger, checkKeys, checkOneOf, checkAbsolutePath } from '../check.ts';
import { invalid } from '../errors.ts';
import type { NativeIntegrity } from '../native.ts';

/** What protects the data: see {@link IntegrityOptions.checksum}. */
export type Checksum = 'none' | 'ip' | 'crc16' | 'crc64';

/** Metadata beside the data of a device (Linux 7.0). */
export interface IntegrityOptions {
  /**
   * The checksum in the protection information, which the kernel makes when it writes and checks
   * when it reads: `'crc16'` of T10 DIF and `'ip'` in tuples of 8 bytes, `'crc64'` of NVMe in
   * tuples of 16. With `'none'` the metadata means something to the device's user alone.
   * @default 'crc16'
   */
  readonly checksum?: Checksum | undefined;
  /**
   * Bytes of metadata to each interval, 1 to 255.
   * @default those of the tuple; with `'none'` there is none
   */
  readonly metadataSize?: number | undefined;
  /**
   * Where in the metadata the protection information begins, in bytes.
   * @default 0
   */
  readonly piOffset?: number | undefined;
  /**
   * Bytes of data to each piece of metadata: 512 to the logical block size.
   * @default the logical block size
   */
  readonly interval?: number | undefined;
  /**
   * Bytes of the application tag.
   * @default 0
   */
  readonly tagSize?: number | undefined;
  /**
   * Whether the reference tag counts blocks (type 1 of T10).
   * @default true, with `'none'` false
   */
  readonly referenceTags?: boolean | undefined;
  /**
   * Whether the device says that it checks what it is given. It does not.
   * @default false
   */
  readonly capable?: boolean | undefined;
}

/**
 * Metadata in a file beside the data.
 *
 * A sector and its metadata are always of one write, whatever else reads or writes the sector, and after a
 * power cut or the death of the server. So each write goes through a journal in the file first: it takes
 * its data twice and four syncs, one after another, and is durable when it completes. If a write fails
 * (`EIO`, or `ENOSPC` where the data is sparse) when its record may be in the journal already, all later
 * writes, and reads of its sectors, fail with `EIO` until the next server opens the file and does the write
 * again. Nothing is discarded.
 */
export interface FileIntegrityOptions extends IntegrityOptions {
  /**
   * The file that keeps it: a regular file of its own, which outlives a reboot if the data does (over
   * a block device it cannot lie beside the data, since `/dev` is in memory). If it is missing and the
   * data is empty it is made, of all ones, which the kernel does not check. It belongs to data of one
   * size and to one format, and is refused for any other. Besides the metadata it holds the journal, which
   * takes as much space as the data, at most 32 MiB, and its metadata. A file of an earlier version, which
   * has no journal, is given one when it is opened for writing.
   * @default the path of the data with `.metadata` behind it
   */
  readonly path?: string | URL | undefined;
  /**
   * Whether a file that is missing is made although the data is not empty (a block device always
   * counts as not empty): nothing of the data is checked then, until it is written again. A file that
   * is there is never replaced.
   * @default false
   */
  readonly create?: boolean | undefined;
}

const TUPLE = { none: 0, ip: 8, crc16: 8, crc64: 16 } as const;
const KEYS = [
  'checksum',
  'metadataSize',
  'piOffset',
  'interval',
  'tagSize',
  'referenceTags',
  'capable',
];

/** Checks metadata and puts it as the addon takes it; `inFile`: it may say where it is kept. */
export function toNativeIntegrity(options: FileIntegrityOptions, inFile: boolean): NativeIntegrity {
  checkKeys(options, 'integrity', inFile ? [...KEYS, 'path', 'create'] : KEYS);
  const { piOffset = 0, interval, tagSize = 0, capable = false, path } = options;
  const { create = false } = options;
  const checksum = checkOneOf(
    options.checksum ?? 'crc16',
    'checksum',
    Object.keys(TUPLE) as Checksum[],
  );
  const { metadataSize = TUPLE[checksum], referenceTags = checksum !== 'none' } = options;
  const size = checkInteger(metadataSize, 'metadataSize', 1, 255);
  const offset = checkInteger(piOffset, 'piOffset', 0, 255);
  if (offset + TUPLE[checksum] > size) {
    throw invalid(
      `metadataSize is ${size}; protection information of '${checksum}' takes ` +
        `${TUPLE[checksum]} bytes from piOffset ${offset} on`,
    );
  }
  if (checkBoolean(referenceTags, 'referenceTags') && checksum === 'none') {
    throw invalid("referenceTags and checksum 'none' exclude each other");
  }
  return {
    checksum,
    metadataSize: size,
    piOffset: offset,
    ...(interval === undefined ? {} : { interval: checkInterval(interval) }),
    tagSize: checkInteger(tagSize, 'tagSize', 0, 255),
    referenceTags,
    capable: checkBoolean(capable, 'capable'),
    ...(path === undefined ? {} : { path: checkAbsolutePath(path, 'integrity.path') }),
    ...(checkBoolean(create, 'integrity.create') ? { create } : {}),
  };
}

/** A target as frozen data, down to its metadata. */
export function freezeWithIntegrity<T extends { readonly integrity?: object | undefined }>(
  target: T,
): T {
  const { integrity } = target;
  if (integrity === undefined) return Object.freeze(target);
  return Object.freeze({ ...target, integrity: Object.freeze({ ...integrity }) });
}

function checkInterval(value: unknown): number {
  if (value === 512 || value === 1024 || value === 2048 || value === 4096) return value;
  throw invalid(`interval is ${String(value)}; it must be 512, 1024, 2048 or 4096`);
}
