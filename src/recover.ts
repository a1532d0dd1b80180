import { checkKeys } from './check.ts';
import { hasEnded, type CreateDeviceContext } from './create.ts';
import type { Device } from './device.ts';
import { getDeviceInfo } from './devices.ts';
import { unwrap } from './errors.ts';
import type { DeviceInfo } from './info.ts';
import { serve, serverOf } from './handler/serve.ts';
import type { HandlerServer } from './handler/server.ts';
import { checkKeepers } from './handler/state.ts';
import type { HandlerModule } from './handler/module.ts';
import type { Handler } from './handler/types.ts';
import { lockMemoryFor } from './lock-memory.ts';
import {
  native,
  type NativeDevice,
  type NativeEnd,
  type NativeMaker,
  type NativeTarget,
} from './native.ts';
import { nameDisk } from './names.ts';
import { noteServer } from './notes.ts';
import { toNative } from './options.ts';
import { createIn } from './pool.ts';
import { RecordKeeper } from './records/keep.ts';
import { recall } from './records/recall.ts';
import { SERVING_KEYS, toNativeServing, watchDevice, type ServingOptions } from './serving.ts';
import type { Target } from './targets/index.ts';

/**
 * The options of {@link recoverDevice}: those of the new server. The options of the device were decided
 * when the device was created. Without a `target`, an option that is left out is that of the last
 * server; with a `target`, the option has the default below.
 */
export interface RecoverOptions extends ServingOptions {
  /**
   * The answerer of the device's requests from now on: the same as before.
   * @default the target in the record that the last server has left in `/run/ublk`
   */
  // oxlint-disable-next-line typescript/no-explicit-any -- a handler may have backends of any name
  readonly target?: Target | Handler<any> | HandlerModule | undefined;
}

const KEYS = ['target', ...SERVING_KEYS];

/**
 * Serves a device whose server has died, or has left the device ({@link Device.quiesce}); waits for a
 * server that is about to leave, and for the server's locks. The device must have been created with
 * `recovery`, and the target must be the same: ublk compares the size, the layout of the bytes and the
 * abilities of the target with what clients were told and with what the last server has written down
 * in `/run/ublk`. The device keeps the size and the block size when the target's are larger. A device of
 * a version of this package that wrote no layout down is recovered on trust. If the promise rejects,
 * the device waits on.
 *
 * Each server of a device with `recovery` leaves a record of the target and the options in `/run/ublk`,
 * which is read where no `target` is given. A handler's functions, and the data of a handler's module,
 * are in no record: such a device needs its `target`.
 *
 * An abort takes effect when the device is being served: the new server leaves the device again before
 * the promise rejects with `signal.reason`. If the server cannot leave, the promise resolves to the
 * device in spite of the abort, since the device is served.
 *
 * @example
 * await using device = await recoverDevice(0);
 * await using other = await recoverDevice(1, { target: targets.file('disk.img') });
 *
 * @throws {UblkError} `ERR_UBLK_NO_DEVICE`; `ERR_UBLK_INVALID_ARGUMENT` for a device without
 * `recovery`, and without a `target` where no record names one; `ERR_UBLK_BAD_RECORD` where the record
 * is half-written, foreign or of a later version, and the file stays; `ERR_UBLK_BUSY` when the server
 * stays, or a backing file of the device is in use; `ERR_UBLK_CLOSED` for a device that was
 * stopped; `ERR_UBLK_BAD_BACKEND` when the target is another; and the errors of {@link createDevice}.
 */
export async function recoverDevice(
  id: number,
  options: RecoverOptions = {},
  context: CreateDeviceContext = {},
): Promise<Device> {
  checkKeys(options, 'recoverDevice()', KEYS);
  toNativeServing(options);
  if (options.target !== undefined) toNative(options.target);
  checkKeys(context, 'the context of recoverDevice()', ['signal']);
  return await takeDevice(id, options, context);
}

/** How {@link takeDevice} goes about it. */
export interface TakeContext extends CreateDeviceContext {
  /** The state of the last server's handler, as text. */
  readonly state?: string | undefined;
  /** What {@link getDeviceInfo} has answered before, to save the time of another question. */
  readonly info?: DeviceInfo | undefined;
}

/** @internal {@link recoverDevice} with checked options, and with the state of the last server's handler. */
export async function takeDevice(
  id: number,
  options: RecoverOptions,
  { signal, state, info: known }: TakeContext,
): Promise<Device> {
  signal?.throwIfAborted();
  const info = known ?? (await getDeviceInfo(id));
  const { serving, recorded, request } = requestOf(info, options);
  lockMemoryFor(serving);
  let onEnd!: (end: NativeEnd) => void;
  const ended = new Promise<NativeEnd>((resolve) => (onEnd = resolve));
  const server = await serverOf(serving.target, request);
  if (state !== undefined) await resume(server, state);
  const { pool } = serving;
  const recover = async (maker: NativeMaker): Promise<NativeDevice> =>
    unwrap(await maker.recoverDevice(id, server?.request ?? request, onEnd));
  const device = await serve(server, ended, () =>
    pool === undefined ? recover(native()) : createIn(pool, ended, recover),
  );
  // Before Linux 6.16 nobody can quiesce a device; the server leaves as at the end of the program.
  const leave = (): Promise<void> => device.quiesce().catch(() => device.part());
  if (signal?.aborted && (await hasEnded(leave()))) throw signal.reason;
  device.named(recorded.name);
  watchDevice(device, serving);
  noteServer(device, request.target, recorded.name);
  const record = new RecordKeeper(recorded);
  record.write(device);
  record.attach(device);
  nameDisk(device.id, recorded.name);
  return device;
}

/** The options for the addon: those of the caller, and those of the record of the last server. */
function requestOf(info: DeviceInfo, options: RecoverOptions) {
  const { serving, recorded } = recall(info, options);
  const { queues, depth } = info;
  const target = toNative(serving.target);
  return { serving, recorded, request: { ...toNativeServing(serving), target, queues, depth } };
}

async function resume(server: HandlerServer | undefined, state: string): Promise<void> {
  try {
    if (server === undefined) checkKeepers(1, 0);
    await server?.resume(state);
  } catch (error) {
    await server?.release();
    throw error;
  }
}

/**
 * @internal Looks whether {@link recoverDevice} would take the target of a device that another server
 * still serves: opens and compares the target, and starts a handler's workers for a moment. Changes nothing.
 * `states` is the number of threads whose handlers keep state. Returns whether the layout was compared: of zones, metadata and overlays, the old server keeps the
 * files to itself.
 *
 * @throws {UblkError} As {@link recoverDevice}.
 */
export async function checkRecovery(
  info: DeviceInfo,
  options: RecoverOptions,
  states = 0,
): Promise<boolean> {
  const { serving, request } = requestOf(info, options);
  const server = await serverOf(serving.target, request);
  const checked = server?.request ?? request;
  try {
    checkKeepers(states, server?.keepers ?? 0);
    const shared = { ...checked, target: unlocked(checked.target) };
    return unwrap(await native().checkRecovery(info.id, shared));
  } finally {
    await server?.release();
  }
}

/** A target that is opened beside the server that has the target's files locked. */
function unlocked(target: NativeTarget): NativeTarget {
  const { kind, integrity, targets } = target;
  const below = targets === undefined ? {} : { targets: targets.map(unlocked) };
  const isPlain = kind === 'file' && integrity === undefined;
  return { ...target, ...below, ...(isPlain && { lock: false }) };
}
