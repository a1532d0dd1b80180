import { checkBoolean, checkInteger, checkKeys } from './check.ts';
import { invalid } from './errors.ts';

/**
 * Settings of the kernel's queue above the device, as `/sys/block/ublkbN/queue` has them. Each is
 * written when the device has started; whoever may can change it there later. What is left out
 * stays as the kernel has it. A setting that the kernel lacks fails with `ERR_UBLK_UNSUPPORTED`.
 */
export interface QueueSettings {
  /** `scheduler`: who orders requests: `none`, `mq-deadline` or what else the kernel has. */
  readonly scheduler?: string | undefined;
  /**
   * `wbt_lat_usec`: how many microseconds a read may take before background writes are held back; 0
   * never holds them back, −1 leaves it to the kernel. Needs `CONFIG_BLK_WBT`.
   * @default -1, but 0 for {@link targets.null}, which writes nothing
   */
  readonly wbtLatUsec?: number | undefined;
  /** `nomerges`: 0 merges requests of neighbouring sectors, 1 tries only cheap ways, 2 never. */
  readonly nomerges?: 0 | 1 | 2 | undefined;
  /** `iostats`: whether `/proc/diskstats`, and so `iostat`, counts the device's requests. */
  readonly iostats?: boolean | undefined;
  /** `rq_affinity`: completions run 0 at the server's CPU, 1 near the submitter's, 2 on it. */
  readonly rqAffinity?: 0 | 1 | 2 | undefined;
  /** `read_ahead_kb`: how far the page cache reads ahead. */
  readonly readAheadKb?: number | undefined;
  /** `max_sectors_kb`: the largest request that the kernel makes, from 4 to `maxIoBytes`. */
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
  checkKeys(settings, 'queue', Object.values(SYSFS));
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
  throw invalid("queue.scheduler must be a scheduler's name, such as 'none' or 'mq-deadline'");
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
