import { checkBoolean, checkInteger, checkKeys, checkName, checkOneOf } from './check.ts';
import { FEATURE_KEYS, toNativeFeatures, type FeatureOptions } from './device-features.ts';
import { invalid } from './errors.ts';
import { checkHandler, isHandler } from './handler/handler.ts';
import { isHandlerModule, type HandlerModule } from './handler/module.ts';
import type { Handler } from './handler/types.ts';
import { BUFFER_MODES, type BufferMode, type ExchangeMode } from './info.ts';
import { toNativeLimits, type DeviceLimits } from './limits.ts';
import type { NativeDeviceOptions, NativeTarget } from './native.ts';
import { checkPool, type ReactorPool } from './pool.ts';
import { checkQueueSettings, type QueueSettings } from './queue-settings.ts';
import { parseSize, type Size } from './size.ts';
import { toNativeTarget, type Target } from './targets/index.ts';

/** What {@link createDevice} is asked for. */
export interface DeviceOptions extends FeatureOptions {
  /**
   * What answers the device's requests: made by one of {@link targets}, or an object with methods
   * that answer them in JavaScript, by {@link handlerModule} in worker threads.
   */
  // oxlint-disable-next-line typescript/no-explicit-any -- whatever its backends are called
  readonly target: Target | Handler<any> | HandlerModule;
  /**
   * A name for people, which `ublk list` shows and the next server keeps: 1 to 64 letters, digits,
   * `.`, `_` and `-`.
   * @default none
   */
  readonly name?: string | undefined;
  /**
   * The number N of `/dev/ublkbN`.
   * @default the kernel's choice
   */
  readonly id?: number | undefined;
  /**
   * Hardware queues, 1 to 4096; each is served by a thread of its own, unless there is `threads`.
   * The kernel cuts it to the number of CPUs: see `Device.queues`.
   * @default 1
   */
  readonly queues?: number | undefined;
  /**
   * Requests of one queue in flight at once, 1 to 4096.
   * @default 128
   */
  readonly depth?: number | undefined;
  /**
   * The largest request: a multiple of 4 KiB from 4 KiB to 32 MiB.
   * @default '1MiB'
   */
  readonly maxIoBytes?: Size | undefined;
  /**
   * How requests' data reaches the server: one of the modes, beside which there can be `shared`,
   * and beside the zero-copy modes `user-copy`.
   * @default the best that the kernel offers: `auto`, then `register`, then `copy`; for a handler
   * that reads or writes data, `copy`
   */
  readonly buffers?: BufferMode | readonly BufferMode[] | undefined;
  /**
   * How requests come and their results go. `batch` costs less at high depth, more at depth 1; of a
   * handler that reads or writes the data, less there too.
   * @default `batch` with buffers `auto` and for handlers, where the kernel has it (Linux 7.0);
   * `per-io` for devices of a pool, of depth 1, with `recovery`, `threads` or `ringsApart`, and for
   * zoned devices
   */
  readonly exchange?: ExchangeMode | undefined;
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
   * How long a queue's thread looks for work before it sleeps, in microseconds, 0 to 1000000; 0:
   * not at all. Saves most of a wake-up's cost at low depth and keeps a CPU busy meanwhile. A
   * thread that looks in vain four times stops, and tries again after 256 waits; one that looks lets
   * others have its CPU. A handler's thread does the same where it has a single queue; its event
   * loop then turns every 10 ms or so.
   * @default 0
   */
  readonly spinUsec?: number | undefined;
  /**
   * Reactors from `createReactorPool` that serve the queues.
   * @default each queue has a reactor of its own
   */
  readonly pool?: ReactorPool | undefined;
  /** What of the kernel's queue above the device differs from the kernel's default. */
  readonly queue?: QueueSettings | undefined;
  /** What of the device's limits is narrower than its target needs (Linux 6.15). */
  readonly limits?: DeviceLimits | undefined;
  /**
   * How long the kernel may take to start or to remove the device, in milliseconds, 1 to 600000.
   * Before a device goes, the kernel writes to it what clients have left in the page cache. That
   * may take as long as it needs, while requests end.
   * @default 30000
   */
  readonly timeoutMs?: number | undefined;
}

/** The keys of {@link DeviceOptions}. */
export const DEVICE_KEYS: readonly string[] = [
  'target',
  'name',
  'id',
  'queues',
  'depth',
  'maxIoBytes',
  'buffers',
  'exchange',
  'splitRegister',
  'rotateSlots',
  'spinUsec',
  'pool',
  ...FEATURE_KEYS,
  'queue',
  'limits',
  'timeoutMs',
];
const EXCHANGE_MODES: readonly ExchangeMode[] = ['per-io', 'batch'];
const ZERO_COPY: ReadonlySet<string> = new Set(['zero-copy', 'zerocopy', 'zero_copy', 'zc']);
const ZERO_COPY_HINT =
  "zero copy is 'auto' (Linux 6.16) or 'register' (6.15): the default, if it is there";
const MAX_ID = (1 << 20) - 1;

/** Checks the options and puts them as the addon takes them. */
export function toNativeOptions(options: DeviceOptions): NativeDeviceOptions {
  checkKeys(options, 'createDevice()', DEVICE_KEYS);
  const { name, id, queues, depth, maxIoBytes, buffers, exchange } = options;
  const { splitRegister, rotateSlots, spinUsec, pool, queue, limits, timeoutMs } = options;
  const given: { -readonly [K in keyof NativeDeviceOptions]: NativeDeviceOptions[K] } = {
    target: toNative(options.target),
    ...toNativeFeatures(options),
  };
  if (name !== undefined) checkName(name, 'name');
  if (id !== undefined) given.id = checkInteger(id, 'id', 0, MAX_ID);
  if (queues !== undefined) given.queues = checkInteger(queues, 'queues', 1, 4096);
  if (depth !== undefined) given.depth = checkInteger(depth, 'depth', 1, 4096);
  if (maxIoBytes !== undefined) given.maxIoBytes = checkMaxIo(maxIoBytes);
  if (buffers !== undefined) given.buffers = checkModes(buffers);
  if (exchange !== undefined) given.exchange = checkOneOf(exchange, 'exchange', EXCHANGE_MODES);
  if (splitRegister !== undefined) {
    given.splitRegister = checkBoolean(splitRegister, 'splitRegister');
  }
  if (rotateSlots !== undefined) given.rotateSlots = checkBoolean(rotateSlots, 'rotateSlots');
  if (spinUsec !== undefined) given.spinUsec = checkInteger(spinUsec, 'spinUsec', 0, 1_000_000);
  if (pool !== undefined) checkPlacement(options);
  if (queue !== undefined) given.queue = checkQueueSettings(queue);
  if (limits !== undefined) given.limits = toNativeLimits(limits);
  if (timeoutMs !== undefined) given.timeoutMs = checkInteger(timeoutMs, 'timeoutMs', 1, 600_000);
  return given;
}

/** The addon refuses those that exclude each other, before it asks the kernel. */
function checkModes(buffers: BufferMode | readonly BufferMode[]): readonly BufferMode[] {
  const modes = typeof buffers === 'object' ? buffers : [buffers];
  if (!Array.isArray(modes)) throw invalid('buffers is an object; it must be a mode or an array');
  return modes.map((mode) => {
    if (ZERO_COPY.has(String(mode).toLowerCase())) {
      throw invalid(`buffers is ${JSON.stringify(mode)}`, ZERO_COPY_HINT);
    }
    return checkOneOf(mode, 'buffers', BUFFER_MODES);
  });
}

/** A target as far as it can be told before anything is touched. */
export function toNative(target: DeviceOptions['target']): NativeTarget {
  if (isHandlerModule(target)) return { kind: 'handler' };
  return isHandler(target) ? checkHandler(target).native : toNativeTarget(target as Target);
}

/** Checks that the threads of a pool are asked for nothing that is the pool's own affair. */
export function checkPlacement({
  pool,
  spinUsec,
  affinity,
}: Pick<DeviceOptions, 'pool' | 'spinUsec' | 'affinity'>): void {
  if (pool !== undefined) checkPool(pool);
  const other = spinUsec === undefined ? affinity && 'affinity' : 'spinUsec';
  if (other) throw invalid(`${other} and pool exclude each other: the pool has its own threads`);
}

function checkMaxIo(size: Size): number {
  const bytes = parseSize(size, 'maxIoBytes');
  if (bytes >= 4096 && bytes <= 32 << 20 && bytes % 4096 === 0) return bytes;
  throw invalid(`maxIoBytes is ${size}; it must be a multiple of 4 KiB from 4 KiB to 32 MiB`);
}
