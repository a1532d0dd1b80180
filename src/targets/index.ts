import { suggest } from '../check.ts';
import { invalid } from '../errors.ts';
import type { NativeTarget } from '../native.ts';
import { fileTarget, toNativeFile, type FileTarget } from './file.ts';
import { nullTarget, toNativeNull, type NullTarget } from './null.ts';

export type { FileTarget, FileTargetOptions } from './file.ts';
export type { NullTarget, NullTargetOptions } from './null.ts';

/** What answers a device's requests: plain data, made by one of {@link targets}. */
export type Target = NullTarget | FileTarget;

/** Makes targets. Each is plain, frozen data; nothing is opened before the device is created. */
export const targets: {
  readonly null: typeof nullTarget;
  readonly file: typeof fileTarget;
} = Object.freeze({ null: nullTarget, file: fileTarget });

/** Checks a target and puts it as the addon takes it. */
export function toNativeTarget(target: Target): NativeTarget {
  const kind: unknown = (target as Partial<Target> | undefined)?.kind;
  if (kind === 'null') return toNativeNull(target as NullTarget);
  if (kind === 'file') return toNativeFile(target as FileTarget);
  const hint = "make it with targets.file('disk.img') or targets.null({ size: '1GiB' })";
  if (typeof kind !== 'string') throw invalid('target is no target', hint);
  throw invalid(`there is no target of kind '${kind}'`, suggest(kind, Object.keys(targets)));
}
