import { createRequire } from 'node:module';

import { UblkError, UblkErrorCode, type Outcome } from './errors.ts';
import type { DeviceInfo, DeviceUsers, Feature, StopCheck } from './info.ts';
import type { OverlayReport } from './overlay-folders.ts';
import type { OverlayExport, OverlayMerged } from './overlay-merges.ts';
import type { OverlayRebased } from './overlay-rebase.ts';
import type { OverlayChange, OverlayLayer } from './overlays.ts';
import type {
  NativeTarget,
  NativeDeviceOptions,
  NativeEnd,
  NativeDevice,
  NativeExport,
  NativeMaker,
  NativePool,
  NativeBridgeOptions,
  NativeBridge,
  NativeReport,
  NativeChannel,
  NativeSimulationOptions,
  NativeSimulation,
  NativeBranch,
  NativeOverlayTask,
} from './native-types.ts';
import type { LatencyKind } from './latencies.ts';
import { unloaded } from './unloaded.ts';

export type * from './native-types.ts';

/** The addon. Promises never reject and functions never throw: an {@link Outcome} holds a failure. */
export interface Binding extends NativeMaker {
  /** Locks the memory of the data path, to the end of the process. */
  lockMemory(): Outcome<void>;
  createPool(reactors: number, maxReactors: number, spinUsec: number): Promise<Outcome<NativePool>>;
  createExport(
    options: NativeDeviceOptions,
    exported: NativeExport,
    onEnd: (end: NativeEnd) => void,
  ): Promise<Outcome<NativeDevice>>;
  createOverlay(
    base: NativeTarget,
    path: string,
    logicalBlockSize?: number,
  ): Promise<Outcome<string>>;
  forkOverlay(
    path: string,
    children: readonly string[],
    history: string | undefined,
  ): Promise<Outcome<void>>;
  overlayInfo(path: string): Promise<Outcome<OverlayLayer[]>>;
  overlayDiff(path: string, from: string | undefined): Promise<Outcome<OverlayChange[]>>;
  overlayTask(): NativeOverlayTask;
  overlayExport(
    base: NativeTarget,
    path: string,
    out: string,
    replaces: boolean,
    task: NativeOverlayTask,
  ): Promise<Outcome<OverlayExport>>;
  overlayFlatten(
    path: string,
    prunes: boolean,
    task: NativeOverlayTask,
  ): Promise<Outcome<OverlayMerged>>;
  overlayCommit(path: string, task: NativeOverlayTask): Promise<Outcome<OverlayMerged>>;
  overlayCommitIntoBase(
    base: string,
    path: string,
    task: NativeOverlayTask,
  ): Promise<Outcome<void>>;
  overlayRebase(
    path: string,
    from: NativeTarget | undefined,
    to: NativeTarget,
    task: NativeOverlayTask,
  ): Promise<Outcome<OverlayRebased>>;
  overlaySend(
    path: string,
    from: string | undefined,
    fd: number,
    task: NativeOverlayTask,
  ): Promise<Outcome<void>>;
  overlayReceive(
    fd: number,
    path: string,
    base: NativeTarget | undefined,
    task: NativeOverlayTask,
  ): Promise<Outcome<void>>;
  overlayTree(folder: string): Promise<Outcome<NativeBranch[]>>;
  overlayCheck(
    path: string,
    base: NativeTarget | undefined,
    repairs: boolean,
    task: NativeOverlayTask,
  ): Promise<Outcome<OverlayReport>>;
  /** Ends the service of all devices of the process, like the end of the process. */
  partAll(): Promise<Outcome<void>>;
  createBridge(
    options: NativeBridgeOptions,
    onReport: (report: NativeReport) => void,
  ): Outcome<NativeBridge>;
  openChannel(
    bridge: number,
    queue: number,
    spinUs: number,
    onRequests: () => void,
  ): Outcome<NativeChannel>;
  listDevices(): Promise<Outcome<DeviceInfo[]>>;
  deviceInfo(id: number): Promise<Outcome<DeviceInfo>>;
  checkRecovery(id: number, options: NativeDeviceOptions): Promise<Outcome<boolean>>;
  stopDevice(id: number, force: boolean): Promise<Outcome<StopCheck>>;
  quiesceDevice(id: number): Promise<Outcome<void>>;
  resizeDevice(id: number, size: number, force: boolean): Promise<Outcome<DeviceInfo>>;
  setDeviceAffinity(id: number, cpus: readonly number[]): Promise<Outcome<number>>;
  deleteDevice(id: number, force: boolean): Promise<Outcome<void>>;
  deviceUsers(id: number): Promise<Outcome<DeviceUsers>>;
  /** Sends a datagram to a Unix socket: a path, or `@` and an abstract name. Waits up to a second. */
  notify(address: string, message: string): Outcome<void>;
  /** Asks the reactors of the process for a sign of life; names those that owe one since the last call. */
  silentReactors(): string[];
  features(): Promise<Outcome<Feature[]>>;
  latencyBounds(): number[];
  latencyKinds(): LatencyKind[];
  simulate(
    options: NativeDeviceOptions,
    simulation: NativeSimulationOptions,
  ): Outcome<NativeSimulation>;
}

let binding: Binding | undefined;

/**
 * The addon, loaded by the first call.
 *
 * @throws {UblkError} `ERR_UBLK_UNSUPPORTED_PLATFORM`, `ERR_UBLK_NO_ADDON`.
 */
export function native(): Binding {
  binding ??= load(requireFrom(import.meta.url), process.platform, process.arch);
  return binding;
}

/** Loads the addon with `require`; separate from {@link native} for tests. */
export function load(
  require: (id: string) => unknown,
  platform: string,
  architecture: string,
): Binding {
  if (platform !== 'linux') {
    throw new UblkError(
      UblkErrorCode.UnsupportedPlatform,
      `ublk is a driver of the Linux kernel; this is ${platform}`,
      { hint: 'run this program on Linux, for example in a virtual machine' },
    );
  }
  try {
    return require(LOADER) as Binding;
  } catch (cause) {
    throw unloaded(cause, architecture);
  }
}

/** The program that finds and loads the addon, beside the folder of this file. */
const LOADER = '../native/binding.cjs';

/** In a bundle of CommonJS a file has no URL. */
function requireFrom(url: string | undefined): (id: string) => unknown {
  return url === undefined ? refuseBundle : createRequire(url);
}

function refuseBundle(): never {
  throw new Error(`Cannot find module '${LOADER}'`);
}
