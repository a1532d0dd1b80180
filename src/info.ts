/**
 * How requests' data reaches the server.
 * - `auto`: the kernel lends each request's pages to the server before it hands the request over
 *   (zero copy, Linux 6.16).
 * - `register`: the server asks for them (zero copy, Linux 6.15).
 * - `user-copy`: the server copies (Linux 6.5). Beside `auto` or `register` (Linux 6.16), it lets a
 *   target look at what is written, which is not copied otherwise.
 * - `get-data`: the kernel copies between the pages and a buffer that the server has only while
 *   there is a request (Linux 6.0; not with `exchange: 'batch'`).
 * - `copy`: the kernel copies between the pages and a buffer that each tag has for good.
 * - `shared`: requests on memory that clients share ({@link Device.share}) are not copied (Linux
 *   7.1); others go another way, that of a mode beside this one.
 */
export type BufferMode = 'auto' | 'register' | 'user-copy' | 'get-data' | 'copy' | 'shared';

/** All buffer modes, the best first. */
export const BUFFER_MODES: readonly BufferMode[] = [
  'auto',
  'register',
  'copy',
  'user-copy',
  'get-data',
  'shared',
];

/** How a device's requests and their data reach the server. */
export interface Buffering {
  /** What every request can be served with. */
  readonly mode: Exclude<BufferMode, 'shared'>;
  readonly exchange: ExchangeMode;
  /** User copy is there as well as zero copy. */
  readonly userCopy?: true;
  /** Clients can share memory. */
  readonly shared?: true;
}

/**
 * How requests come to the server and their results go back.
 * - `per-io`: one command per request.
 * - `batch`: one command for many (Linux 7.0).
 */
export type ExchangeMode = 'per-io' | 'batch';

/**
 * The state of a device.
 * - `dead`: added but not started, or its server is gone.
 * - `live`: serving.
 * - `quiesced`: its server is gone; requests wait for a new one.
 * - `fail-io`: its server is gone; requests fail until there is a new one.
 */
export type DeviceState = 'dead' | 'live' | 'quiesced' | 'fail-io';

/**
 * What becomes of a device whose server dies, or leaves it with {@link Device.quiesce}.
 * - `queue`: requests wait for the next server; those that the dead one had taken fail with `EIO`.
 *   No request is executed twice (`USER_RECOVERY`, Linux 6.1).
 * - `reissue`: requests wait for the next server, and those that the dead one had taken are given
 *   to it again: clients notice a pause and nothing else. A write may be executed twice, which
 *   targets that write in place do not mind (`USER_RECOVERY_REISSUE`, Linux 6.1).
 * - `fail`: requests fail until there is a next server (`USER_RECOVERY_FAIL_IO`, Linux 6.13).
 */
export type Recovery = 'queue' | 'reissue' | 'fail';

/**
 * What was looked at before a device was stopped.
 * - `openers`: the kernel made sure that nobody had it open (Linux 7.0).
 * - `holders`: `/proc` and `/sys` named no mount, device, swap space or process that uses it. Missed
 *   are processes that this user may not look into, and those that opened it meanwhile.
 * - `nothing`: it was forced.
 */
export type StopCheck = 'openers' | 'holders' | 'nothing';

/** A device as the kernel describes it. Sizes in bytes. */
export interface DeviceInfo {
  /** The number N of `/dev/ublkbN`. */
  readonly id: number;
  /** The block device, `/dev/ublkbN`. */
  readonly path: string;
  readonly state: DeviceState;
  /** Hardware queues. */
  readonly queues: number;
  /** Requests of one queue in flight at once. */
  readonly depth: number;
  /** The largest request. */
  readonly maxIoBytes: number;
  /**
   * Absent before the device's parameters are set, and while they are not known: the kernel answers
   * nobody who asks for them as long as it waits for the requests of a device that stops.
   */
  readonly size?: number;
  /** Absent when {@link size} is; it may be known although `size` is not. */
  readonly logicalBlockSize?: number;
  /** Whether writes are refused. Absent when {@link size} is; it may be known although `size` is not. */
  readonly readOnly?: boolean;
  /** The process that serves it; absent while none does. */
  readonly serverPid?: number;
  /** The user who created it. */
  readonly ownerUid: number;
  /** Their group. */
  readonly ownerGid: number;
  /** Whether it outlives its server, and how; absent: it ends with it. */
  readonly recovery?: Recovery;
  /** The features in force, by the kernel's names without `UBLK_F_`. */
  readonly features: readonly string[];
}

/** One user of a device, or of a partition of it. */
export interface DeviceUser {
  /**
   * - `mount`: a mount, in whichever mount namespace.
   * - `device`: another block device made of it: device-mapper, md, loop.
   * - `swap`: the kernel swaps to it.
   * - `process`: a process has it open.
   */
  readonly kind: 'mount' | 'device' | 'swap' | 'process';
  /** The mount point, or the name of the device or of the process's program; absent for `swap`. */
  readonly name?: string;
  /** The process id; absent for other kinds. */
  readonly pid?: number;
}

/** The users of a device, as {@link deviceUsers} finds them. */
export interface DeviceUsers {
  readonly found: readonly DeviceUser[];
  /**
   * Whether all places were looked at: `false` where this user may not look into the processes of
   * others, or where a machine has more processes and files than the search takes (200,000).
   */
  readonly complete: boolean;
  /** All of them in words; `'nobody'`, or `'nobody that this user may see'`, where there are none. */
  readonly text: string;
}

/** One feature of the ublk driver. */
export interface Feature {
  /** The kernel's name without `UBLK_F_`: `AUTO_BUF_REG`. */
  readonly name: string;
  /** The first Linux release that has it: `6.16`. */
  readonly since: string;
  /** Whether this kernel has it. */
  readonly supported: boolean;
}

/** What was done since the device started; all counts of requests unless they say bytes. */
export interface Counters {
  readonly reads: number;
  readonly writes: number;
  readonly flushes: number;
  readonly discards: number;
  readonly writeZeroes: number;
  readonly readBytes: number;
  readonly writeBytes: number;
  /** Bytes that moved between the client's pages and the target without a copy. */
  readonly zeroCopyBytes: number;
  /** Bytes that the kernel copied between the client's pages and a buffer of the server's. */
  readonly copiedBytes: number;
  /** Requests that failed. */
  readonly errors: number;
  /** Times the target did less than it was asked and was asked again for the rest. */
  readonly shortResults: number;
  /** Bytes beyond the end of the backing file that were read as zeros. */
  readonly zeroFilledBytes: number;
  /** Buffers that the server registered. */
  readonly registrations: number;
  /** Requests that the kernel could not register a buffer for, so that the server did. */
  readonly fallbacks: number;
  /** Calls of io_uring_enter. */
  readonly enters: number;
}

/** A device's counters: one entry per queue, and their sum. */
export interface DeviceStats {
  readonly queues: readonly Counters[];
  readonly total: Counters;
}
