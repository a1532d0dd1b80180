import { checkBoolean, checkInteger, checkKeys, checkOneOf, checkAbsolutePath } from '../check.ts';
import { wrong } from '../errors.ts';
import type { NativeIntegrity } from '../native.ts';

/** The checksum of the data: see {@link IntegrityOptions.checksum}. */
export type Checksum = 'none' | 'ip' | 'crc16' | 'crc64';

/** Metadata beside the data of a device (Linux 7.0). */
export interface IntegrityOptions {
  /**
   * The checksum in the protection information; the kernel writes the checksum with the data and
   * checks reads: `'crc16'` of T10 DIF and `'ip'` in tuples of 8 bytes, `'crc64'` of NVMe in tuples of
   * 16 bytes. With `'none'` only the device's user interprets the metadata.
   * @default 'crc16'
   */
  readonly checksum?: Checksum | undefined;
  /**
   * Bytes of metadata for each interval, 1 to 255.
   * @default the size of the tuple; required with `'none'`
   */
  readonly metadataSize?: number | undefined;
  /**
   * The offset of the protection information in the metadata, in bytes.
   * @default 0
   */
  readonly piOffset?: number | undefined;
  /**
   * Bytes of data for each piece of metadata: 512 to the logical block size.
   * @default the logical block size
   */
  readonly interval?: number | undefined;
  /**
   * The size of the application tag in bytes.
   * @default 0
   */
  readonly tagSize?: number | undefined;
  /**
   * Whether the reference tag counts blocks (type 1 of T10).
   * @default true, with `'none'` false
   */
  readonly referenceTags?: boolean | undefined;
  /**
   * Whether the device announces that the device itself checks data. ublk itself checks nothing.
   * @default false
   */
  readonly capable?: boolean | undefined;
}

/**
 * Metadata in a file beside the data.
 *
 * A sector and its metadata always belong to the same write: under concurrent reads and writes, after a
 * power cut, and after the death of the server. Each write therefore goes through a journal in the
 * metadata's file, which costs the data a second time and four syncs in sequence; a completed write is
 * durable. A write may fail (`EIO`, or `ENOSPC` where the data is sparse) with a record already in the
 * journal: all later writes, and reads of the same sectors, then fail with `EIO` until the next server
 * opens the file and repeats the write. The device supports no discards.
 */
export interface FileIntegrityOptions extends IntegrityOptions {
  /**
   * The metadata's file: a regular file for this purpose alone. Where the data survives a reboot, so must
   * this file (for a block device choose a path outside `/dev`, which lies in memory). ublk makes a missing
   * file for empty data, filled with ones, which the kernel does not check. The file belongs to data of a
   * fixed size and to a single format; ublk refuses the file for any other data. The journal in the file
   * takes as much space as the data, at most 32 MiB, and the space of that data's metadata. ublk adds a
   * journal to a file of an earlier version when a server opens the file for writing.
   * @default the path of the data with `.metadata` behind it
   */
  readonly path?: string | URL | undefined;
  /**
   * Whether ublk makes a missing file for data that is not empty (a block device always counts as not
   * empty): the kernel then checks no data before the next write. ublk never replaces an existing file.
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

/** Checks metadata options and converts the options for the addon; `inFile` allows a path. */
export function toNativeIntegrity(options: FileIntegrityOptions, inFile: boolean): NativeIntegrity {
  checkKeys(options, 'integrity', inFile ? [...KEYS, 'path', 'create'] : KEYS, 'integrity');
  const { piOffset = 0, interval, tagSize = 0, capable = false, path } = options;
  const { create = false } = options;
  const checksum = checkOneOf(
    options.checksum ?? 'crc16',
    'integrity.checksum',
    Object.keys(TUPLE) as Checksum[],
  );
  const { metadataSize = TUPLE[checksum], referenceTags = checksum !== 'none' } = options;
  const size = checkInteger(metadataSize, 'integrity.metadataSize', 1, 255);
  const offset = checkInteger(piOffset, 'integrity.piOffset', 0, 255);
  if (offset + TUPLE[checksum] > size) {
    throw wrong(
      'integrity.metadataSize',
      `is ${size}; protection information of '${checksum}' takes ` +
        `${TUPLE[checksum]} bytes from piOffset ${offset} on`,
    );
  }
  if (checkBoolean(referenceTags, 'integrity.referenceTags') && checksum === 'none') {
    throw wrong('integrity.referenceTags', "and checksum 'none' exclude each other");
  }
  return {
    checksum,
    metadataSize: size,
    piOffset: offset,
    ...(interval === undefined ? {} : { interval: checkInterval(interval) }),
    tagSize: checkInteger(tagSize, 'integrity.tagSize', 0, 255),
    referenceTags,
    capable: checkBoolean(capable, 'integrity.capable'),
    ...(path === undefined ? {} : { path: checkAbsolutePath(path, 'integrity.path') }),
    ...(checkBoolean(create, 'integrity.create') ? { create } : {}),
  };
}

/** A target as frozen data, including the metadata options. */
export function freezeWithIntegrity<T extends { readonly integrity?: object | undefined }>(
  target: T,
): T {
  const { integrity } = target;
  if (integrity === undefined) return Object.freeze(target);
  return Object.freeze({ ...target, integrity: Object.freeze({ ...integrity }) });
}

function checkInterval(value: unknown): number {
  if (value === 512 || value === 1024 || value === 2048 || value === 4096) return value;
  throw wrong('integrity.interval', `is ${String(value)}; it must be 512, 1024, 2048 or 4096`);
}
