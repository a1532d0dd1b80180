import { checkAbsolutePath, checkBoolean } from './check.ts';
import { listDevices } from './devices.ts';
import { unwrap } from './errors.ts';
import { native, type NativeBranch } from './native.ts';
import { readNote } from './notes.ts';
import { checkTaskOptions, runTask, type OverlayTaskOptions } from './overlay-task.ts';
import { toNativeTarget, type Target } from './targets/index.ts';

/** A layer of {@link overlayTree}, with the layers on top; sizes in bytes. */
export interface OverlayBranch {
  /** The file, absolute. */
  readonly path: string;
  /** The UUID of the layer. */
  readonly layer: string;
  /** The number of superblocks written so far. */
  readonly generation: number;
  /** The size of the disk. */
  readonly size: number;
  /** Bytes of the file system used by the file. */
  readonly allocated: number;
  /** Whether the layer is never written to again. */
  readonly frozen: boolean;
  /** Whether the last server has closed the layer; false while a server has the layer. */
  readonly closed: boolean;
  /** The process that serves the layer, if the process is on this machine. */
  readonly server?: number | undefined;
  /** The device of this process, by the note of the server. */
  readonly device?: string | undefined;
  /** The layers on top of this layer. */
  readonly children: readonly OverlayBranch[];
}

/** A base of {@link overlayTree}, or a missing file below layers. */
export interface OverlayRoot {
  /** The base; absent if the folder has no file of the size and the time of the base. */
  readonly base?: string | undefined;
  /** Whether a layer below is missing, and not a base. */
  readonly layerMissing: boolean;
  /** The layers on top of the base. */
  readonly children: readonly OverlayBranch[];
}

/** A problem of {@link overlayCheck}. */
export interface OverlayProblem {
  /** The file. */
  readonly path: string;
  /** The problem, and the remedy. */
  readonly message: string;
}

/** The findings of {@link overlayCheck}; sizes in bytes. */
export interface OverlayReport {
  /** The checked layers, the highest first. */
  readonly layers: readonly string[];
  /** The problems; empty for a sound disk. */
  readonly problems: readonly OverlayProblem[];
  /** Unused bytes in the file of the highest layer: up to some MiB are usual. */
  readonly unused: number;
  /** Bytes given back to the file system by `repair`. */
  readonly reclaimed: number;
}

/** Options of {@link overlayCheck}. */
export interface CheckOptions extends OverlayTaskOptions {
  /** The base of the disk, to be compared by size and time of modification. */
  readonly base?: Target | undefined;
  /** Whether unused space of the highest layer is given back, if there is no problem. @default false */
  readonly repair?: boolean | undefined;
}

/**
 * Lists the layers in a folder as trees: each layer with the layers on top, the base, and the
 * process that serves the layer. The layers may be in use. A base is known by size and time of
 * modification, and only in the same folder.
 *
 * @example
 * for (const { base, children } of await overlayTree('disks')) console.log(base, children.length);
 *
 * @throws {UblkError} `ERR_UBLK_NO_BACKEND` for a missing folder; `ERR_UBLK_PERMISSION` where a file cannot
 * be read.
 */
export async function overlayTree(folder: string | URL = '.'): Promise<OverlayRoot[]> {
  const branches = unwrap(await native().overlayTree(checkAbsolutePath(folder, 'folder')));
  const devices = await servedLayers();
  const grow = (path: string): OverlayBranch[] =>
    branches.filter((one) => one.onLayer && one.below === path).map(nest);
  const nest = ({ onLayer: _onLayer, below: _below, ...one }: NativeBranch): OverlayBranch => ({
    ...one,
    ...(one.server !== undefined && { device: devices.get(`${one.server} ${one.path}`) }),
    children: grow(one.path),
  });
  const roots = branches.filter(({ onLayer, below }) => !onLayer || below === undefined);
  const found = new Map<string, NativeBranch[]>();
  for (const one of roots) {
    const key = `${one.onLayer} ${one.below}`;
    found.set(key, [...(found.get(key) ?? []), one]);
  }
  return [...found.values()].map((some) => ({
    base: some[0]?.below,
    layerMissing: some[0]?.onLayer ?? false,
    children: some.map(nest),
  }));
}

/** This machine's devices with layers, by process and path. */
async function servedLayers(): Promise<Map<string, string>> {
  // Without the driver there are no devices.
  const devices = await listDevices().catch(() => []);
  return new Map(
    devices.flatMap((info) => {
      const [, path] = /^(.*) on /.exec(readNote(info)?.serves ?? '') ?? [];
      return path === undefined ? [] : [[`${info.serverPid} ${path}`, info.path]];
    }),
  );
}

/**
 * Checks the files of a disk without a server: superblocks, logs, ranges outside of a file or on
 * each other, the layers below, and with `base` the base. Data has no checksums: the stored data is
 * not checked.
 *
 * @example
 * const { problems } = await overlayCheck('vm1.layer', { base: targets.file('debian.img') });
 *
 * @param path The file of the layer.
 * @throws {UblkError} `ERR_UBLK_BUSY` while a server has the layer; `ERR_UBLK_NO_BACKEND` where there is no
 * file at `path`.
 */
export async function overlayCheck(
  path: string | URL,
  options: CheckOptions = {},
): Promise<OverlayReport> {
  checkTaskOptions(options, 'overlayCheck', ['base', 'repair']);
  const layer = checkAbsolutePath(path, 'path');
  const base = options.base && toNativeTarget(options.base);
  const repair = checkBoolean(options.repair ?? false, 'repair');
  return await runTask(options, (task) => native().overlayCheck(layer, base, repair, task));
}
