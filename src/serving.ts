import { checkBoolean, checkCpus, checkInteger } from './check.ts';
import type { Device } from './device.ts';
import type { Given } from './device-features.ts';
import { wrong } from './errors.ts';
import { checkMerge, type MergeOptions } from './merges.ts';
import { checkPool, type ReactorPool } from './pool.ts';
import { toNativeThrottle, type ThrottleOptions } from './throttle.ts';
import { toNativeWatchdog, type WatchdogOptions } from './watchdog.ts';

/** A device's threads and their CPUs. */
export interface PlacementOptions {
  /**
   * The number of threads for the tags of all queues, 1 to 1024: ublk deals the tags out in turn, so that
   * a client on a single CPU keeps all threads busy (more than 1 needs `PER_IO_DAEMON`, Linux 6.16). With
   * a pool, the number of shares for its reactors. Not with `exchange: 'batch'`, nor with handlers.
   * @default a thread for each queue
   */
  readonly threads?: number | undefined;
  /**
   * Replaces each thread by two: the first fetches and commits requests, the second registers buffers
   * with another ring and does the I/O (`BUF_REG_OFF_DAEMON`, Linux 6.17). Needs `buffers: 'register'`,
   * the default with this option; not for handlers and zoned targets, nor with a pool.
   * @default false
   */
  readonly ringsApart?: boolean | undefined;
  /**
   * Whether each queue's thread stays on the CPUs mapped to the queue by the kernel. Without effect on
   * `threads`, which serve all queues.
   * @default true
   */
  readonly pin?: boolean | undefined;
  /** The numbers of the CPUs for all threads of the device; not with `pin`. */
  readonly affinity?: readonly number[] | undefined;
}

/** What each server of a device chooses anew: the options of the server, not of the device. */
export interface ServingOptions extends PlacementOptions {
  /**
   * With `buffers: 'register'`: register, I/O and unregister each in a system call of its own
   * instead of all in one.
   * @default false
   */
  readonly splitRegister?: boolean | undefined;
  /**
   * For finding defects of the server, with zero copy: each tag's requests take turns at two slots
   * of the buffer table, so that a stale index finds an empty slot (`EFAULT`) and not another
   * request's data.
   * @default false
   */
  readonly rotateSlots?: boolean | undefined;
  /**
   * How long a queue's thread looks for work before the thread sleeps, in microseconds, 0 to 1000000;
   * with 0 the thread sleeps at once. Saves most of a wake-up's cost at low depth, and keeps a CPU busy
   * meanwhile. A thread that looks in vain four times stops, and tries again after 256 waits; a thread
   * that looks yields the CPU to others. A handler's thread does the same where the thread has a single
   * queue; the thread's event loop then turns every 10 ms or so. Not with `pool`.
   * @default 0
   */
  readonly spinUsec?: number | undefined;
  /**
   * Whether everything that the device's threads touch stays in memory: their stacks and data, the memory
   * of all targets of this process, and its buffers for requests (with `copy`, queues x depth x
   * `maxIoBytes`). Without it a device must not be swapped to: a thread that has been swapped out to its own
   * device waits for itself. The memory stays locked to the end of the process. Needs `CAP_IPC_LOCK` or
   * `RLIMIT_MEMLOCK` without limit. Not with handlers, whose memory belongs to JavaScript; of a `pool`,
   * the option of the pool.
   * @default false
   */
  readonly lockMemory?: boolean | undefined;
  /**
   * Reactors from `createReactorPool` that serve the queues; not with `affinity`.
   * @default each queue has a reactor of its own
   */
  readonly pool?: ReactorPool | undefined;
  /**
   * How long the kernel may take to start, to take up again or to remove the device, and an old server
   * to leave, in milliseconds, 1 to 600000. Before the removal, the kernel writes to the device what
   * clients have left in the page cache; the writes may take longer, as long as requests end.
   * @default 30000
   */
  readonly timeoutMs?: number | undefined;
  /**
   * Limits of requests and bytes per second; `device.throttle()` changes the limits. Not for
   * `unprivileged` devices.
   * @default no limits
   */
  readonly throttle?: ThrottleOptions | undefined;
  /**
   * Measures how long requests take, by kind: `device.stats().latencies`, and histograms for Prometheus. Each
   * request then takes two looks at the clock, and a lone request a system call more.
   * @default false
   */
  readonly latencies?: boolean | undefined;
  /**
   * Notices requests that do not end and threads that do not answer, and names them in the event
   * `stalled`. A lone request then takes a system call more, and an answer of a handler wakes a thread.
   * @default no watchdog
   */
  readonly watchdog?: WatchdogOptions | undefined;
  /**
   * Merges the frozen layers below an overlay's disk when there are too many, or when they waste space:
   * {@link Device.flatten}, at the start of the service and after each snapshot and fork. A merge that fails is
   * a `warning`. Without effect on other targets.
   * @default only calls of {@link Device.flatten} merge
   */
  readonly merge?: MergeOptions | undefined;
}

/** The keys of {@link ServingOptions} that are plain data, which the next server can take over. */
export const RECALLED_KEYS = [
  'timeoutMs',
  'splitRegister',
  'rotateSlots',
  'spinUsec',
  'lockMemory',
  'threads',
  'ringsApart',
  'pin',
  'affinity',
  'throttle',
  'latencies',
  'watchdog',
  'merge',
] as const;
/** The keys of {@link ServingOptions}. */
export const SERVING_KEYS: readonly string[] = [...RECALLED_KEYS, 'pool'];

/** Checks the options of a server and converts the options for the addon. */
export function toNativeServing(options: ServingOptions): Given {
  const { splitRegister, rotateSlots, spinUsec, pool, timeoutMs, throttle } = options;
  const { watchdog } = options;
  const given = toNativePlacement(options);
  if (splitRegister !== undefined) {
    given.splitRegister = checkBoolean(splitRegister, 'splitRegister');
  }
  if (rotateSlots !== undefined) given.rotateSlots = checkBoolean(rotateSlots, 'rotateSlots');
  if (spinUsec !== undefined) given.spinUsec = checkInteger(spinUsec, 'spinUsec', 0, 1_000_000);
  if (options.latencies !== undefined) checkBoolean(options.latencies, 'latencies');
  if (options.lockMemory !== undefined) checkBoolean(options.lockMemory, 'lockMemory');
  if (pool !== undefined) checkWithPool(pool, options);
  if (timeoutMs !== undefined) given.timeoutMs = checkInteger(timeoutMs, 'timeoutMs', 1, 600_000);
  if (throttle !== undefined) given.throttle = toNativeThrottle(throttle);
  if (watchdog !== undefined) given.watchdog = toNativeWatchdog(watchdog);
  if (options.merge !== undefined) checkMerge(options.merge);
  return given;
}

/** Checks the placement options and converts the options for the addon. */
function toNativePlacement(options: PlacementOptions): Given {
  const { threads, ringsApart, pin, affinity } = options;
  const given: Given = {};
  if (threads !== undefined) given.threads = checkInteger(threads, 'threads', 1, 1024);
  if (ringsApart !== undefined) given.ringsApart = checkBoolean(ringsApart, 'ringsApart');
  if (pin !== undefined) given.pin = checkBoolean(pin, 'pin');
  if (affinity === undefined) return given;
  if (pin) throw wrong('pin', 'and affinity exclude each other', 'leave one of them out');
  return { ...given, affinity: checkCpus(affinity, 'affinity') };
}

/** Checks a pool, and that no option is about the pool's own threads. */
function checkWithPool(pool: ReactorPool, options: ServingOptions): void {
  checkPool(pool);
  const other = (['spinUsec', 'affinity', 'lockMemory'] as const).find(
    (key) => options[key] !== undefined && options[key] !== false,
  );
  if (other) throw wrong(other, 'and pool exclude each other: the pool has its own threads');
}

/** @internal Begins what the options want to know of a device that is served from now on. */
export function watchDevice(
  device: Pick<Device, 'measure' | 'guard' | 'keepMerged'>,
  { latencies, watchdog, merge }: Pick<ServingOptions, 'latencies' | 'watchdog' | 'merge'>,
): void {
  if (latencies) device.measure();
  if (watchdog !== undefined) device.guard(watchdog);
  if (merge !== undefined) device.keepMerged(merge);
}
