import { checkBoolean, checkInteger, checkKeys } from './check.ts';
import { hasEnded, type CreateDeviceContext } from './create.ts';
import { PLACEMENT_KEYS, toNativePlacement, type PlacementOptions } from './device-features.ts';
import type { Device } from './device.ts';
import { getDeviceInfo } from './devices.ts';
import { unwrap } from './errors.ts';
import { serve, serverOf } from './handler/server.ts';
import type { HandlerModule } from './handler/module.ts';
import type { Handler } from './handler/types.ts';
import {
  native,
  type NativeDevice,
  type NativeDeviceOptions,
  type NativeEnd,
  type NativePool,
} from './native.ts';
import { noteServer } from './notes.ts';
import { checkPlacement, toNative } from './options.ts';
import { createIn, type ReactorPool } from './pool.ts';
import { keepRecord } from './records/keep.ts';
import { recall } from './records/recall.ts';
import type { Target } from './targets/index.ts';

/**
 * What {@link recoverDevice} is asked for. What the device is otherwise was decided when it was
 * created. Without a `target`, options that are left out are those of the last server; with a
 * `target`, they have the defaults below.
 */
export interface RecoverOptions extends PlacementOptions {
  /**
   * What answers the device's requests from now on: what answered them before.
   * @default the target in the record that the last server has left in `/run/ublk`
   */
  // oxlint-disable-next-line typescript/no-explicit-any -- whatever its backends are called
  readonly target?: Target | Handler<any> | HandlerModule | undefined;
  /**
   * With `buffers: 'register'`: register, I/O and unregister each in a system call of its own.
   * @default false
   */
  readonly splitRegister?: boolean | undefined;
  /**
   * As {@link DeviceOptions.rotateSlots}.
   * @default false
   */
  readonly rotateSlots?: boolean | undefined;
  /**
   * As {@link DeviceOptions.spinUsec}, in microseconds, 0 to 1000000; not with `pool`.
   * @default 0
   */
  readonly spinUsec?: number | undefined;
  /**
   * Reactors from {@link createReactorPool} that serve the queues from now on; not with `affinity`.
   * @default each queue has a reactor of its own
   */
  readonly pool?: ReactorPool | undefined;
  /**
   * How long the old server may take to leave, and the kernel to go on, in milliseconds, 1 to
   * 600000.
   * @default 30000
   */
  readonly timeoutMs?: number | undefined;
}

const KEYS = [
  'target',
  'splitRegister',
  'rotateSlots',
  'spinUsec',
  'pool',
  'timeoutMs',
  ...PLACEMENT_KEYS,
];

/**
 * Serves a device whose server has died, or has left it ({@link Device.quiesce}); a server that is
 * about to is waited for, and so are its locks. The device must have been created with `recovery`, and
 * the target must be what it was: its size, the layout of its bytes and its abilities are compared
 * with what clients were told and with what the last server has written down in `/run/ublk`. The
 * device keeps its size and its blocks when the target is larger or needs larger ones. A device of a
 * version of this package that wrote no layout down is recovered on trust. If the promise rejects,
 * the device waits on.
 *
 * Each server of a device with `recovery` leaves a record of its target and options in `/run/ublk`,
 * which is read where no `target` is given. A handler's functions, and the data of a handler's module,
 * are in no record: such a device needs its `target`.
 *
 * An abort takes effect when the device is being served: it is left again before the promise rejects
 * with `signal.reason`. If that fails, the promise resolves to the device in spite of the abort,
 * since it is served.
 *
 * @example
 * await using device = await recoverDevice(0);
 * await using other = await recoverDevice(1, { target: targets.file('disk.img') });
 *
 * @throws {UblkError} `ERR_UBLK_NO_DEVICE`; `ERR_UBLK_INVALID_ARGUMENT` for a device without
 * `recovery`, and without a `target` where no record names one; `ERR_UBLK_BAD_RECORD` where the record
 * is half-written, foreign or of a later version, and stays as it is; `ERR_UBLK_BUSY` when its server
 * stays, or what lies behind the device is in use; `ERR_UBLK_BAD_BACKEND` when the target is another;
 * and what {@link createDevice} throws.
 */
export async function recoverDevice(
  id: number,
  options: RecoverOptions = {},
  context: CreateDeviceContext = {},
): Promise<Device> {
  toNativeServing(options);
  if (options.target !== undefined) toNative(options.target);
  checkKeys(context, 'the context of recoverDevice()', ['signal']);
  const { signal } = context;
  signal?.throwIfAborted();
  const info = await getDeviceInfo(id);
  const { serving, recorded } = recall(info, options);
  const { queues, depth } = info;
  const target = toNative(serving.target);
  const request = { ...toNativeServing(serving), target, queues, depth };
  let onEnd!: (end: NativeEnd) => void;
  const ended = new Promise<NativeEnd>((resolve) => (onEnd = resolve));
  const server = await serverOf(serving.target, request);
  const { pool } = serving;
  const recover = async (maker: Pick<NativePool, 'recoverDevice'>): Promise<NativeDevice> =>
    unwrap(await maker.recoverDevice(id, server?.request ?? request, onEnd));
  const device = await serve(server, ended, () =>
    pool === undefined ? recover(native()) : createIn(pool, ended, recover),
  );
  // Before Linux 6.16 nobody can quiesce it, and it is left as at the end of the program.
  const leave = (): Promise<void> => device.quiesce().catch(() => device.part());
  if (signal?.aborted && (await hasEnded(leave()))) throw signal.reason;
  noteServer(device, request.target, recorded.name);
  keepRecord(device, recorded);
  return device;
}

/** Checks how a device shall be served, as the addon takes it, but for the target. */
function toNativeServing(options: RecoverOptions): Omit<NativeDeviceOptions, 'target'> {
  checkKeys(options, 'recoverDevice()', KEYS);
  const { splitRegister, rotateSlots, spinUsec, pool, timeoutMs } = options;
  const given: { -readonly [K in keyof NativeDeviceOptions]?: NativeDeviceOptions[K] } =
    toNativePlacement(options);
  if (splitRegister !== undefined) {
    given.splitRegister = checkBoolean(splitRegister, 'splitRegister');
  }
  if (rotateSlots !== undefined) given.rotateSlots = checkBoolean(rotateSlots, 'rotateSlots');
  if (spinUsec !== undefined) given.spinUsec = checkInteger(spinUsec, 'spinUsec', 0, 1_000_000);
  if (pool !== undefined) checkPlacement(options);
  if (timeoutMs !== undefined) given.timeoutMs = checkInteger(timeoutMs, 'timeoutMs', 1, 600_000);
  return given;
}
