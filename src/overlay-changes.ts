import { checkAbsolutePath } from './check.ts';
import { wrong } from './errors.ts';
import { native } from './native.ts';
import { checkTaskOptions, runTask, type OverlayTaskOptions } from './overlay-task.ts';
import { toNativeTarget, type Target } from './targets/index.ts';

/** Options of {@link streamOverlayChanges}. */
export interface StreamOptions extends OverlayTaskOptions {
  /** The file of a layer below, for the changes since that layer was frozen. @default the base */
  readonly from?: string | URL | undefined;
}

/** Options of {@link applyOverlayChanges}. */
export interface ApplyOptions extends OverlayTaskOptions {
  /** The base of the new layer, for changes since the base. */
  readonly base?: Target | undefined;
}

/**
 * Writes the changes of a disk without a server since its base, or since a layer below, to a file, a pipe
 * or a socket, with checksums: a backup, or a copy for another machine. {@link applyOverlayChanges} makes
 * a layer of the changes.
 *
 * @example
 * await using file = await open('tuesday.changes', 'wx');
 * await streamOverlayChanges('tuesday.layer', file, { from: 'monday.layer' });
 *
 * @param path The file of the layer.
 * @param out A descriptor, or something with a descriptor, at its current position.
 * @throws {UblkError} As {@link overlayDiff}; `ERR_UBLK_BAD_BACKEND` also where `out` cannot be written to.
 */
export async function streamOverlayChanges(
  path: string | URL,
  out: number | { readonly fd: number },
  options: StreamOptions = {},
): Promise<void> {
  checkTaskOptions(options, 'streamOverlayChanges', ['from']);
  const layer = checkAbsolutePath(path, 'path');
  const from = options.from === undefined ? undefined : checkAbsolutePath(options.from, 'from');
  const fd = descriptor(out, 'out');
  await runTask(options, (task) => native().overlaySend(layer, from, fd, task));
}

/**
 * Makes a layer of changes that {@link streamOverlayChanges} has written. Changes since a layer need that
 * frozen layer, of the same UUID and generation, in the folder of `path`; changes since the base need a
 * `base` of the same size and time of modification (`cp -p`). A frozen layer is the same layer here, with its
 * UUID, so that later changes apply to it. The layer appears once it is whole: a stream that is cut or
 * damaged, a kill and an abort leave nothing.
 *
 * @example
 * await using file = await open('tuesday.changes');
 * await applyOverlayChanges(file, 'backup/tuesday.layer');
 *
 * @param input A descriptor, or something with a descriptor, at its current position.
 * @param path The file to make.
 * @throws {UblkError} `ERR_UBLK_BAD_BACKEND` where `path` exists, and for changes that are cut, damaged, or
 * since another base; `ERR_UBLK_NO_BACKEND` where the folder lacks the layer since which the changes are;
 * `ERR_UBLK_INVALID_ARGUMENT` without a base that is needed.
 */
export async function applyOverlayChanges(
  input: number | { readonly fd: number },
  path: string | URL,
  options: ApplyOptions = {},
): Promise<void> {
  checkTaskOptions(options, 'applyOverlayChanges', ['base']);
  const layer = checkAbsolutePath(path, 'path');
  const base = options.base && toNativeTarget(options.base);
  const fd = descriptor(input, 'input');
  await runTask(options, (task) => native().overlayReceive(fd, layer, base, task));
}

function descriptor(value: number | { readonly fd: number }, name: string): number {
  const fd = typeof value === 'object' && value !== null ? value.fd : value;
  if (Number.isSafeInteger(fd) && fd >= 0 && fd < 2 ** 31) return fd;
  throw wrong(name, 'must be a file descriptor, or an open FileHandle');
}
