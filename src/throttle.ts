import { checkInteger, checkKeys } from './check.ts';
import { invalid, wrong } from './errors.ts';
import type { NativeRates, NativeThrottle } from './native.ts';
import { parseSize, type Size } from './size.ts';

/** Limits of a class of requests. */
export interface ThrottleRates {
  /**
   * Requests per second, 1 or more.
   * @default no limit
   */
  readonly iops?: number | undefined;
  /**
   * Bytes of reads and writes per second, 1 or more. Discards and write-zeroes count as no bytes.
   * @default no limit
   */
  readonly bytesPerSecond?: Size | undefined;
}

/**
 * Limits of a device: of reads, writes, discards and write-zeroes together, and of reads and of the others
 * apart. A request must keep within all limits that it falls under. Flushes are never held back.
 */
export interface ThrottleOptions extends ThrottleRates {
  /** Limits of reads. */
  readonly read?: ThrottleRates | undefined;
  /** Limits of writes, zone appends, discards and write-zeroes. */
  readonly write?: ThrottleRates | undefined;
  /**
   * How much an idle device may use at once: as much as its limits allow in this time, in seconds, 0 to
   * 3600. A request larger than that passes, and the next requests wait the longer.
   * @default 0.1
   */
  readonly burst?: number | undefined;
}

const RATES = ['iops', 'bytesPerSecond'];
const KEYS = [...RATES, 'read', 'write', 'burst'];
/** The names of limits in words. */
const NAMES = [...['', 'read.', 'write.'].flatMap((of) => RATES.map((key) => of + key)), 'burst'];

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` */
export function toNativeThrottle(limits: ThrottleOptions): NativeThrottle {
  checkKeys(limits, 'throttle', KEYS, 'throttle');
  const { read, write, burst } = limits;
  return {
    all: toRates(limits, 'throttle'),
    read: toClass(read, 'read'),
    write: toClass(write, 'write'),
    ...(burst !== undefined && { burst: checkBurst(burst) }),
  };
}

function toClass(rates: ThrottleRates | undefined, name: 'read' | 'write'): NativeRates {
  const place = `throttle.${name}`;
  if (rates === undefined) return {};
  checkKeys(rates, place, RATES, place);
  return toRates(rates, place);
}

function toRates({ iops, bytesPerSecond }: ThrottleRates, place: string): NativeRates {
  const most = Number.MAX_SAFE_INTEGER;
  return {
    ...(iops !== undefined && { iops: checkInteger(iops, `${place}.iops`, 1, most) }),
    ...(bytesPerSecond !== undefined && { bytes: checkBytes(bytesPerSecond, place) }),
  };
}

function checkBytes(size: Size, place: string): number {
  const name = `${place}.bytesPerSecond`;
  const bytes = parseSize(size, name);
  if (bytes >= 1) return bytes;
  throw wrong(name, `is ${size}; it must be at least 1: a limit of 0 would end no request`);
}

function checkBurst(burst: number): number {
  if (typeof burst === 'number' && burst >= 0 && burst <= 3600) return burst;
  throw wrong('throttle.burst', `is ${String(burst)}; it must be from 0 to 3600 seconds`);
}

/**
 * Reads limits as words: `iops=1000 write.bytesPerSecond=20MiB burst=0.5`.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`
 */
export function parseThrottle(words: readonly string[]): ThrottleOptions {
  const limits: Record<string, unknown> = {};
  for (const word of words) {
    const [name = '', text] = word.split(/=(.*)/s);
    const [key, of] = name.split('.').toReversed();
    const isKnown = NAMES.includes(name);
    if (!isKnown || key === undefined || text === undefined) {
      throw invalid(`'${word}' is no limit`, `NAME=VALUE, where NAME is: ${NAMES.join(', ')}`);
    }
    const value = key === 'bytesPerSecond' ? text : Number(text);
    const place = of === undefined ? limits : ((limits[of] ??= {}) as Record<string, unknown>);
    place[key] = value;
  }
  toNativeThrottle(limits);
  return limits;
}

/** Limits in words, as {@link parseThrottle} reads them; nothing without limits. */
export function throttleText(limits: ThrottleOptions): string {
  const words = Object.entries(limits).flatMap(([name, value]: [string, unknown]) => {
    if (typeof value !== 'object') return value === undefined ? [] : [`${name}=${String(value)}`];
    return Object.entries(value ?? {}).map(([key, rate]) => `${name}.${key}=${String(rate)}`);
  });
  return words.join(' ');
}
