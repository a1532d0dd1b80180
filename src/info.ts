import type { DeviceLatencies } from './latencies.ts';
/**
 * The way of a request's bytes to the server.
 * - `auto`: the kernel registers the request's pages with the server's io_uring, then hands the
 *   request over (zero copy, Linux 6.16).
 * - `register`: the server registers the request's pages (zero copy, Linux 6.15).
 * - `user-copy`: the server copies (Linux 6.5). Beside `auto` or `register` (Linux 6.16) the server
 *   copies only metadata and zone reports, and adds the mode where the target needs it.
 * - `get-data`: the kernel copies between the pages and a buffer lent by the server for the time of
 *   the request (Linux 6.0; not with `exchange: 'batch'`).
 * - `copy`: the kernel copies between the pages and a buffer; each tag keeps a buffer.
 * - `shared`: no copy for requests on memory shared by clients ({@link Device.share}, Linux 7.1);
 *   all other requests use the mode beside `shared`.
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

/** The buffer mode and the exchange of a device, as agreed with the kernel. */
export interface Buffering {
  /** The buffer mode of every request. */
  readonly mode: Exclude<BufferMode, 'shared'>;
  readonly exchange: ExchangeMode;
  /** The device has user copy beside zero copy. */
  readonly userCopy?: true;
  /** Clients can share memory. */
  readonly shared?: true;
}

/**
 * The way of requests to the server and of results back.
 * - `per-io`: a command for each request.
 * - `batch`: a command for many requests (Linux 7.0).
 */
export type ExchangeMode = 'per-io' | 'batch';

/**
 * The state of a device.
 * - `dead`: added but not started, or left without a server.
 * - `live`: served.
 * - `quiesced`: without a server; requests wait for the next server.
 * - `fail-io`: without a server; requests fail until the next server.
 */
export type DeviceState = 'dead' | 'live' | 'quiesced' | 'fail-io';

/**
 * The fate of a device after its server has died or left the device with {@link Device.quiesce}.
 * - `queue`: requests wait for the next server; requests in flight fail with `EIO`. No request is
 *   executed twice (`USER_RECOVERY`, Linux 6.1).
 * - `reissue`: requests wait for the next server, and the kernel gives requests in flight to the
 *   next server again: clients notice a pause and nothing else. A write may be executed twice, which
 *   is harmless for targets that write in place (`USER_RECOVERY_REISSUE`, Linux 6.1).
 * - `fail`: requests fail until the next server (`USER_RECOVERY_FAIL_IO`, Linux 6.13).
 */
export type Recovery = 'queue' | 'reissue' | 'fail';

/**
 * The check for users before a device was stopped.
 * - `openers`: the kernel made sure that no client had the device open (Linux 7.0).
 * - `holders`: `/proc` and `/sys` named no mount, device, swap space or process using the device. The
 *   check misses processes closed to this user, and clients opening the device during the check.
 * - `nothing`: forced, without a check.
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
  /** The largest request, in bytes. */
  readonly maxIoBytes: number;
  /**
   * In bytes. Absent before the device has parameters, and while the kernel does not report the
   * parameters: the kernel waits for the requests of a stopping device first.
   */
  readonly size?: number;
  /** In bytes. May be absent when {@link size} is absent. */
  readonly logicalBlockSize?: number;
  /** Whether writes are refused. May be absent when {@link size} is absent. */
  readonly readOnly?: boolean;
  /** The server's process id; absent without a server. */
  readonly serverPid?: number;
  /** The user id of the creator. */
  readonly ownerUid: number;
  /** The group id of the creator. */
  readonly ownerGid: number;
  /** The recovery of the device; absent: the device ends with its server. */
  readonly recovery?: Recovery;
  /** The features in force, by the kernel's names without `UBLK_F_`. */
  readonly features: readonly string[];
}

/** A user of a device or of a partition of the device. */
export interface DeviceUser {
  /**
   * - `mount`: a mount, in any mount namespace.
   * - `device`: another block device on top: device-mapper, md, loop.
   * - `swap`: swap space of the kernel.
   * - `process`: a process with an open file descriptor.
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
   * Whether the search covered everything: `false` where this user may not inspect other users'
   * processes, or where a machine has more than 200,000 processes and open files.
   */
  readonly complete: boolean;
  /** All users in words; without users `'nobody'`, or `'nobody that this user may see'`. */
  readonly text: string;
}

/** A feature of the ublk driver. */
export interface Feature {
  /** The kernel's name without `UBLK_F_`: `AUTO_BUF_REG`. */
  readonly name: string;
  /** The first Linux release with the feature: `6.16`. */
  readonly since: string;
  /** Whether this kernel has the feature. */
  readonly supported: boolean;
}

/** Counters since the start of the service: requests, except where bytes are named. */
export interface Counters {
  readonly reads: number;
  readonly writes: number;
  readonly flushes: number;
  readonly discards: number;
  readonly writeZeroes: number;
  readonly readBytes: number;
  readonly writeBytes: number;
  /** Bytes moved between the client's pages and the target without a copy. */
  readonly zeroCopyBytes: number;
  /** Bytes copied by the kernel between the client's pages and a buffer of the server. */
  readonly copiedBytes: number;
  /** Failed requests. */
  readonly errors: number;
  /** Short results of the backing store; the engine continued each for the rest. */
  readonly shortResults: number;
  /** Bytes read as zeros beyond the end of the backing file. */
  readonly zeroFilledBytes: number;
  /** Buffers registered by the server. */
  readonly registrations: number;
  /** Requests whose buffer the server registered because the kernel could not. */
  readonly fallbacks: number;
  /** Calls of io_uring_enter. */
  readonly enters: number;
}

/** A device's counters: an entry for each queue, and the sum. */
export interface DeviceStats {
  readonly queues: readonly Counters[];
  readonly total: Counters;
  /** How many stalls the watchdog has reported: {@link DeviceEvents.stalled}. */
  readonly stalled: number;
  /** The latencies of all queues; only with the option `latencies`. */
  readonly latencies?: DeviceLatencies;
}
