import { checkBoolean, checkInteger, checkKeys } from './check.ts';
import { invalid, wrong } from './errors.ts';

/**
 * Settings of the kernel's queue above the device, by their names in `/sys/block/ublkbN/queue`. ublk
 * writes each setting after the start of the device, by `/bin/sh`; root can change the setting there
 * later. A setting left out keeps the kernel's default. A setting unknown to the kernel fails with
 * `ERR_UBLK_UNSUPPORTED`, and so does each setting on a machine without `/bin/sh`. The kernel takes most
 * settings when no request is in flight: requests without an answer for 30 s end in `ERR_UBLK_TIMEOUT`.
 */
export interface QueueSettings {
  /** `scheduler`: `none`, `mq-deadline` or another I/O scheduler of the kernel. */
  readonly scheduler?: string | undefined;
  /**
   * `wbt_lat_usec`: the latency of reads, in microseconds, above which the kernel throttles background
   * writes; 0 never throttles, −1 is the kernel's default. Needs `CONFIG_BLK_WBT`.
   * @default -1, but 0 for {@link targets.null}
   */
  readonly wbtLatUsec?: number | undefined;
  /** `nomerges`: 0 merges neighbouring requests, 1 merges only in cheap cases, 2 never. */
  readonly nomerges?: 0 | 1 | 2 | undefined;
  /** `iostats`: whether `/proc/diskstats` and `iostat` count the device's requests. */
  readonly iostats?: boolean | undefined;
  /** `rq_affinity`: completions run on the server's CPU (0), near the submitter's CPU (1), on it (2). */
  readonly rqAffinity?: 0 | 1 | 2 | undefined;
  /** `read_ahead_kb`: the read-ahead of the page cache, in KiB. */
  readonly readAheadKb?: number | undefined;
  /** `max_sectors_kb`: the largest request made by the kernel, in KiB, from 4 to `maxIoBytes`. */
  readonly maxSectorsKb?: number | undefined;
}

/** The settings as the addon takes them. */
export interface NativeQueueSettings {
  scheduler?: string;
  wbtLatUsec?: number;
  nomerges?: number;
  iostats?: boolean;
  rqAffinity?: number;
  readAheadKb?: number;
  maxSectorsKb?: number;
}

/** The kernel's names. */
const SYSFS = {
  scheduler: 'scheduler',
  wbt_lat_usec: 'wbtLatUsec',
  nomerges: 'nomerges',
  iostats: 'iostats',
  rq_affinity: 'rqAffinity',
  read_ahead_kb: 'readAheadKb',
  max_sectors_kb: 'maxSectorsKb',
} as const;

const RANGES = {
  wbtLatUsec: [-1, Number.MAX_SAFE_INTEGER],
  nomerges: [0, 2],
  rqAffinity: [0, 2],
  readAheadKb: [0, 0xffff_ffff],
  maxSectorsKb: [4, 32 << 10],
} as const;

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` */
export function checkQueueSettings(settings: QueueSettings): NativeQueueSettings {
  checkKeys(settings, 'queue', Object.values(SYSFS), 'queue');
  const { scheduler, iostats } = settings;
  const given: NativeQueueSettings = {};
  if (scheduler !== undefined) given.scheduler = checkScheduler(scheduler);
  if (iostats !== undefined) given.iostats = checkBoolean(iostats, 'queue.iostats');
  for (const [name, [min, max]] of Object.entries(RANGES)) {
    const key = name as keyof typeof RANGES;
    const value = settings[key];
    if (value !== undefined) given[key] = checkInteger(value, `queue.${name}`, min, max);
  }
  return given;
}

function checkScheduler(name: unknown): string {
  if (typeof name === 'string' && /^[\w-]{1,32}$/.test(name)) return name;
  throw wrong('queue.scheduler', "must be a scheduler's name, such as 'none' or 'mq-deadline'");
}

/**
 * Reads settings as `NAME=VALUE` by the kernel's names, such as `wbt_lat_usec=0`.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`
 */
export function parseQueueSettings(pairs: readonly string[]): QueueSettings {
  const settings: Record<string, unknown> = {};
  for (const pair of pairs) {
    const [name = '', value] = pair.split(/=(.*)/s);
    const key = Object.hasOwn(SYSFS, name) ? SYSFS[name as keyof typeof SYSFS] : undefined;
    if (key === undefined || value === undefined) {
      const known = Object.keys(SYSFS).join(', ');
      throw invalid(`'${pair}' is no setting of a queue`, `NAME=VALUE, where NAME is: ${known}`);
    }
    settings[key] = key === 'scheduler' ? value : parseValue(value, name);
    if (key === 'iostats') settings[key] = checkInteger(settings[key], name, 0, 1) === 1;
  }
  return settings as QueueSettings;
}

function parseValue(text: string, name: string): number {
  if (/^-?\d{1,15}$/.test(text)) return Number(text);
  throw invalid(`${name} is '${text}'; it must be a whole number`);
}
