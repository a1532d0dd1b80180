import { checkInteger, checkKeys, checkName, checkOneOf } from './check.ts';
import { FEATURE_KEYS, toNativeFeatures, type FeatureOptions } from './device-features.ts';
import { within, wrong } from './errors.ts';
import { checkHandler, isHandler } from './handler/handler.ts';
import { isHandlerModule, type HandlerModule } from './handler/module.ts';
import type { Handler } from './handler/types.ts';
import { BUFFER_MODES, type BufferMode, type ExchangeMode } from './info.ts';
import { toNativeLimits, type DeviceLimits } from './limits.ts';
import type { NativeDeviceOptions, NativeTarget } from './native.ts';
import { checkQueueSettings, type QueueSettings } from './queue-settings.ts';
import { SERVING_KEYS, toNativeServing, type ServingOptions } from './serving.ts';
import { parseSize, type Size } from './size.ts';
import { toNativeTarget, type Target } from './targets/index.ts';

/** The options of {@link createDevice}. */
export interface DeviceOptions extends FeatureOptions, ServingOptions {
  /**
   * The answerer of the device's requests: a target of {@link targets}, or an object whose methods
   * answer requests in JavaScript; with {@link handlerModule}, in worker threads.
   */
  // oxlint-disable-next-line typescript/no-explicit-any -- a handler may have backends of any name
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
   * Hardware queues, 1 to 4096; without `threads`, each queue has a thread of its own. The kernel
   * makes at most one queue for each CPU: see `Device.queues`.
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
   * How requests' data reaches the server: one of the modes; `shared` goes with all modes, `user-copy`
   * with the zero-copy modes.
   * @default the best that the kernel offers: `auto`, then `register`, then `copy`; for a handler
   * that reads or writes data, `copy`
   */
  readonly buffers?: BufferMode | readonly BufferMode[] | undefined;
  /**
   * How requests come and results go. `batch` costs less at high depth, and more at depth 1; with a
   * handler that reads or writes the data, `batch` costs less at depth 1, too.
   * @default `batch` with buffers `auto` and for handlers, where the kernel has `batch` (Linux 7.0);
   * `per-io` for devices of a pool, of depth 1, with `recovery`, `threads` or `ringsApart`, and for
   * zoned devices
   */
  readonly exchange?: ExchangeMode | undefined;
  /** Settings of the kernel's queue above the device, where other than the kernel's defaults. */
  readonly queue?: QueueSettings | undefined;
  /** Limits of the device, where narrower than the target's own limits (Linux 6.15). */
  readonly limits?: DeviceLimits | undefined;
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
  ...SERVING_KEYS,
  ...FEATURE_KEYS,
  'queue',
  'limits',
];
const EXCHANGE_MODES: readonly ExchangeMode[] = ['per-io', 'batch'];
const ZERO_COPY: ReadonlySet<string> = new Set(['zero-copy', 'zerocopy', 'zero_copy', 'zc']);
const ZERO_COPY_HINT =
  "zero copy is 'auto' (Linux 6.16) or 'register' (6.15), the default where the kernel has them";
const MAX_ID = (1 << 20) - 1;

/** Checks the options and converts the options for the addon. */
export function toNativeOptions(options: DeviceOptions): NativeDeviceOptions {
  checkKeys(options, 'createDevice()', DEVICE_KEYS);
  const { name, id, queues, depth, maxIoBytes, buffers, exchange, queue, limits } = options;
  const given: { -readonly [K in keyof NativeDeviceOptions]: NativeDeviceOptions[K] } = {
    target: within('target', () => toNative(options.target)),
    ...toNativeServing(options),
    ...toNativeFeatures(options),
  };
  if (options.watchdog?.action === 'quiesce' && given.recovery === undefined) {
    throw wrong(
      'watchdog.action',
      "is 'quiesce', which needs recovery: no other server could take the device",
      "give recovery: 'reissue', or action: 'event'",
    );
  }
  if (name !== undefined) checkName(name, 'name');
  if (id !== undefined) given.id = checkInteger(id, 'id', 0, MAX_ID);
  if (queues !== undefined) given.queues = checkInteger(queues, 'queues', 1, 4096);
  if (depth !== undefined) given.depth = checkInteger(depth, 'depth', 1, 4096);
  if (maxIoBytes !== undefined) given.maxIoBytes = checkMaxIo(maxIoBytes);
  if (buffers !== undefined) given.buffers = checkModes(buffers);
  if (exchange !== undefined) given.exchange = checkOneOf(exchange, 'exchange', EXCHANGE_MODES);
  if (queue !== undefined) given.queue = checkQueueSettings(queue);
  if (limits !== undefined) given.limits = toNativeLimits(limits);
  return given;
}

/** The addon refuses modes that exclude each other, before the addon asks the kernel. */
function checkModes(buffers: BufferMode | readonly BufferMode[]): readonly BufferMode[] {
  const modes = typeof buffers === 'object' ? buffers : [buffers];
  if (!Array.isArray(modes)) throw wrong('buffers', 'is an object; it must be a mode or an array');
  return modes.map((mode) => {
    if (ZERO_COPY.has(String(mode).toLowerCase())) {
      throw wrong('buffers', `is ${JSON.stringify(mode)}`, ZERO_COPY_HINT);
    }
    return checkOneOf(mode, 'buffers', BUFFER_MODES);
  });
}

/** Checks a target and converts the target for the addon, as far as possible without the kernel. */
export function toNative(target: DeviceOptions['target']): NativeTarget {
  if (isHandlerModule(target)) return { kind: 'handler' };
  return isHandler(target) ? checkHandler(target).native : toNativeTarget(target as Target);
}

function checkMaxIo(size: Size): number {
  const bytes = parseSize(size, 'maxIoBytes');
  if (bytes >= 4096 && bytes <= 32 << 20 && bytes % 4096 === 0) return bytes;
  throw wrong('maxIoBytes', `is ${size}; it must be a multiple of 4 KiB from 4 KiB to 32 MiB`);
}
