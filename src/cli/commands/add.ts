import { createDevice } from '../../create.ts';
import type { Device } from '../../device.ts';
import type { BufferMode, ExchangeMode, Recovery } from '../../info.ts';
import { parseQueueSettings } from '../../queue-settings.ts';
import { recoverDevice } from '../../recover.ts';
import { targets, type Target } from '../../targets/index.ts';
import { parseThrottle } from '../../throttle.ts';
import type { MergeOptions } from '../../merges.ts';
import type { WatchdogAction, WatchdogOptions } from '../../watchdog.ts';
import { isInBackground, runInBackground } from '../background.ts';
import { integrityOf, type IntegrityFlags } from '../integrity.ts';
import type { OutputFlags } from '../output.ts';
import { writePidFile } from '../pid-file.ts';
import { hearWishes } from '../sharing.ts';
import { endOnSignal, readyData, readyText, reportEnd, tellStalled } from '../serving.ts';
import { hearSignals, type EndSignals } from '../signals.ts';

/** The flags that all targets share. */
export interface AddFlags extends OutputFlags {
  readonly name?: string;
  readonly id?: number;
  readonly queues?: number;
  readonly depth?: number;
  readonly maxIo?: string;
  readonly buffers?: readonly BufferMode[];
  readonly exchange?: ExchangeMode;
  readonly splitRegister?: true;
  readonly rotateSlots?: true;
  readonly share?: readonly string[];
  readonly shareReadOnly?: readonly string[];
  readonly spin?: number;
  readonly lockMemory?: true;
  readonly latencies?: true;
  readonly threads?: number;
  readonly ringsApart?: true;
  readonly pin: boolean;
  readonly affinity?: readonly number[];
  readonly recovery?: Recovery;
  readonly partScan?: boolean;
  readonly unprivileged?: true;
  readonly ioDescSize?: number;
  /** The device to recover; a new one, if absent. */
  readonly recover?: number;
  readonly dmaAlignment?: string;
  readonly maxSegments?: number;
  readonly maxSegmentSize?: string;
  readonly segmentBoundary?: string;
  readonly set?: readonly string[];
  readonly throttle?: readonly string[];
  /** In seconds. */
  readonly mergeDepth?: number;
  /** In percent. */
  readonly mergeGarbage?: number;
  readonly mergePrune?: true;
  readonly watchdog?: number;
  readonly watchdogAction?: WatchdogAction;
  /** In seconds. */
  readonly stopAfter?: number;
  readonly background?: true;
  readonly pidFile?: string;
  /** `ublk export`: clients of NBD instead of a block device. */
  readonly exports?: true;
}

/** The flags of `ublk add error`. */
export interface ErrorFlags extends AddFlags {
  readonly size: string;
}

/** The flags of `ublk add null`. */
export interface NullFlags extends AddFlags, IntegrityFlags {
  readonly size: string;
  readonly readOnly?: true;
  readonly blockSize?: number;
}

/** The flags of `ublk add file`. */
export interface FileFlags extends AddFlags, IntegrityFlags {
  readonly readOnly?: true;
  readonly direct?: boolean;
  readonly lock: boolean;
  readonly blockSize?: number;
  readonly size?: string;
}

/** `ublk add null` */
export async function addNull(flags: NullFlags): Promise<void> {
  const { size, readOnly, blockSize: logicalBlockSize } = flags;
  const options = { size, readOnly, logicalBlockSize, integrity: integrityOf(flags) };
  await serve(targets.null(options), 'nothing', flags);
}

/** `ublk add file IMAGE` */
export async function addFile(image: string, flags: FileFlags): Promise<void> {
  const { readOnly, direct, lock, blockSize: logicalBlockSize, size } = flags;
  const options = { readOnly, direct, lock, logicalBlockSize, size, integrity: integrityOf(flags) };
  await serve(targets.file(image, options), image, flags);
}

/**
 * Serves a target until a signal or `ublk stop`, in this process or in the background.
 *
 * @param target The target; the one of the record, for a recovery without a target.
 * @param what The target in words.
 */
export async function serve(
  target: Target | undefined,
  what: string | (() => string),
  flags: AddFlags,
): Promise<void> {
  if (flags.exports) {
    const words = typeof what === 'string' ? what : what();
    return (await import('./export.ts')).exportUntilEnd(target, words, flags);
  }
  const signals = hearSignals();
  if (flags.background && !isInBackground()) return runInBackground(signals.first);
  const device = await openUnlessSignalled(target, flags, signals);
  if (device === undefined) return;
  tellStalled(device);
  endOnSignal(() => [device], signals, flags.stopAfter);
  await serveUntilEnd(device, typeof what === 'string' ? what : what(), flags, signals);
}

/** The device; nothing if a signal has come before the device was there: then nothing is left. */
async function openUnlessSignalled(
  target: Target | undefined,
  flags: AddFlags,
  { first, second }: EndSignals,
): Promise<Device | undefined> {
  const exit = () => process.exit(1);
  second.addEventListener('abort', exit);
  try {
    return await open(target, flags, first);
  } catch (error) {
    if (first.aborted && error === first.reason) return undefined;
    throw error;
  } finally {
    second.removeEventListener('abort', exit);
  }
}

async function open(
  target: Target | undefined,
  flags: AddFlags,
  signal: AbortSignal,
): Promise<Device> {
  const { splitRegister, rotateSlots, threads, ringsApart, affinity } = flags;
  const placement = { threads, ringsApart, affinity, pin: flags.pin ? undefined : false };
  const throttle = flags.throttle && parseThrottle(flags.throttle);
  const watchdog = watchdogOf(flags);
  const serving = {
    splitRegister,
    rotateSlots,
    spinUsec: flags.spin,
    lockMemory: flags.lockMemory,
    latencies: flags.latencies,
    throttle,
    watchdog,
    merge: mergeOf(flags),
    ...placement,
  };
  if (target === undefined || flags.recover !== undefined) {
    return recoverDevice(flags.recover ?? 0, { target, ...serving }, { signal });
  }
  const { name, id, queues, depth, maxIo: maxIoBytes, buffers, exchange } = flags;
  const { recovery, partScan, unprivileged, ioDescSize } = flags;
  const { dmaAlignment, maxSegments, maxSegmentSize, segmentBoundary } = flags;
  const limits = { dmaAlignment, maxSegments, maxSegmentSize, segmentBoundary };
  const queue = flags.set && parseQueueSettings(flags.set);
  const shape = { name, id, queues, depth, maxIoBytes, buffers, exchange };
  const features = { recovery, partScan, unprivileged, ioDescSize };
  return createDevice({ target, ...serving, ...shape, ...features, queue, limits }, { signal });
}

/** When layers are merged, by the flags of an overlay. */
export function mergeOf({
  mergeDepth: depth,
  mergeGarbage,
  mergePrune: prune,
}: AddFlags): MergeOptions | undefined {
  if (depth === undefined && mergeGarbage === undefined && prune === undefined) return undefined;
  return { depth, garbage: mergeGarbage === undefined ? undefined : mergeGarbage / 100, prune };
}

/** The watchdog of the flags. */
export function watchdogOf({
  watchdog,
  watchdogAction: action,
}: AddFlags): WatchdogOptions | undefined {
  if (watchdog === undefined && action === undefined) return undefined;
  return { action, ...(watchdog !== undefined && { afterMs: watchdog * 1000 }) };
}

async function serveUntilEnd(
  device: Device,
  what: string,
  flags: AddFlags,
  signals: EndSignals,
): Promise<void> {
  // After an error, a device with recovery that a client uses waits for the next server.
  await using _device = device;
  for (const file of flags.share ?? []) await device.share(file);
  for (const file of flags.shareReadOnly ?? []) await device.share(file, { readOnly: true });
  await using _wishes = await hearWishes(device);
  await using _pidFile = await writePidFile(flags.pidFile);
  announce(device, what, flags);
  await reportEnd(device, signals);
}

/** Scripts wait for the line on stdout; people read the one on stderr. */
function announce(device: Device, what: string, flags: AddFlags): void {
  process.stderr.write(`${readyText(device, what, flags.background)}\n`);
  process.stdout.write(`${flags.json ? JSON.stringify(readyData(device)) : device.path}\n`);
}
