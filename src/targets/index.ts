import { suggest } from '../check.ts';
import { invalid, within } from '../errors.ts';
import type { NativeTarget } from '../native.ts';
import { delayTarget, toNativeDelay, type DelayTarget } from './delay.ts';
import { errorTarget, toNativeError, type ErrorTarget } from './error.ts';
import { fileTarget, toNativeFile, type FileTarget } from './file.ts';
import { checkTarget, checkTargets } from './layer.ts';
import { httpTarget, toNativeHttp, type HttpTarget } from './http.ts';
import { linearTarget, toNativeLinear, type LinearTarget } from './linear.ts';
import { nbdTarget, toNativeNbd, type NbdTarget } from './nbd.ts';
import { nullTarget, toNativeNull, type NullTarget } from './null.ts';
import { overlayTarget, toNativeOverlay, type OverlayTarget } from './overlay.ts';
import { qcow2Target, toNativeQcow2, type Qcow2Target } from './qcow2.ts';
import { rbdTarget, toNativeRbd, type RbdTarget } from './rbd.ts';
import { stripedTarget, toNativeStriped, type StripedTarget } from './striped.ts';
import { toNativeZoned, zonedTarget, type ZonedTarget } from './zoned.ts';

export type { DelayTarget, DelayTargetOptions } from './delay.ts';
export type { ErrorTarget, ErrorTargetOptions } from './error.ts';
export type { FileTarget, FileTargetOptions } from './file.ts';
export type { Checksum, FileIntegrityOptions, IntegrityOptions } from './integrity.ts';
export type { HttpTarget, HttpTargetOptions } from './http.ts';
export type { LinearTarget, LinearTargetOptions } from './linear.ts';
export type { NbdTarget, NbdTargetOptions } from './nbd.ts';
export type { NullTarget, NullTargetOptions } from './null.ts';
export type { OverlayTarget, OverlayTargetOptions } from './overlay.ts';
export type { PresentationOptions } from './presentation.ts';
export type { Qcow2Target, Qcow2TargetOptions } from './qcow2.ts';
export type { RbdTarget, RbdTargetOptions } from './rbd.ts';
export type { StripedTarget, StripedTargetOptions } from './striped.ts';
export type { ZonedTarget, ZonedTargetOptions } from './zoned.ts';

/** The description of a device's contents: plain data from a function of {@link targets}. */
export type Target =
  | NullTarget
  | FileTarget
  | ErrorTarget
  | StripedTarget
  | LinearTarget
  | DelayTarget
  | ZonedTarget
  | OverlayTarget
  | Qcow2Target
  | NbdTarget
  | RbdTarget
  | HttpTarget;

/** Makes targets: plain, frozen data. `createDevice` opens the files. */
export const targets: {
  readonly null: typeof nullTarget;
  readonly file: typeof fileTarget;
  readonly error: typeof errorTarget;
  readonly striped: typeof stripedTarget;
  readonly linear: typeof linearTarget;
  readonly delay: typeof delayTarget;
  readonly zoned: typeof zonedTarget;
  readonly overlay: typeof overlayTarget;
  readonly qcow2: typeof qcow2Target;
  readonly nbd: typeof nbdTarget;
  readonly rbd: typeof rbdTarget;
  readonly http: typeof httpTarget;
} = Object.freeze({
  null: nullTarget,
  file: fileTarget,
  error: errorTarget,
  striped: stripedTarget,
  linear: linearTarget,
  delay: delayTarget,
  zoned: zonedTarget,
  overlay: overlayTarget,
  qcow2: qcow2Target,
  nbd: nbdTarget,
  rbd: rbdTarget,
  http: httpTarget,
});

/** The largest depth of layers. */
const DEEPEST = 8;

/** Checks a target with all children, and converts the target for the addon. */
export function toNativeTarget(target: Target, depth = 0): NativeTarget {
  if (depth > DEEPEST) throw invalid(`the target has more than ${DEEPEST} layers`);
  const below = (child: Target, key: string): NativeTarget =>
    within(key, () => toNativeTarget(child, depth + 1));
  const all = (layer: StripedTarget | LinearTarget): NativeTarget[] =>
    checkTargets(layer.targets, 'targets').map((child, at) => below(child, `targets[${at}]`));
  switch ((target as Partial<Target> | null | undefined)?.kind) {
    case 'null':
      return toNativeNull(target as NullTarget);
    case 'file':
      return toNativeFile(target as FileTarget);
    case 'error':
      return toNativeError(target as ErrorTarget);
    case 'striped':
      return toNativeStriped(target as StripedTarget, all(target as StripedTarget));
    case 'linear':
      return toNativeLinear(target as LinearTarget, all(target as LinearTarget));
    case 'delay':
      return toNativeDelay(target as DelayTarget, [
        below(checkTarget((target as DelayTarget).target, 'target'), 'target'),
      ]);
    case 'zoned':
      return toNativeZoned(target as ZonedTarget);
    case 'overlay':
      return toNativeOverlay(target as OverlayTarget, [
        below(checkTarget((target as OverlayTarget).base, 'base'), 'base'),
      ]);
    case 'qcow2':
      return toNativeQcow2(target as Qcow2Target);
    case 'nbd':
      return toNativeNbd(target as NbdTarget);
    case 'http':
      return toNativeHttp(target as HttpTarget);
    case 'rbd':
      return toNativeRbd(target as RbdTarget);
    default:
      throw noTarget(target);
  }
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

function noTarget(target: unknown): Error {
  const kind = (target as { kind?: unknown } | null | undefined)?.kind;
  const hint = "make it with targets.file('disk.img') or targets.null({ size: '1GiB' })";
  if (isObject(target) && 'size' in target && kind === undefined) {
    const methods = "give it a 'read', or a 'map' and backends; a native target is made by targets";
    return invalid('the target has a size, but neither a kind nor methods', methods);
  }
  if (typeof kind !== 'string') return invalid('target is no target', hint);
  return invalid(
    `there is no target of kind '${kind}'`,
    suggest(kind, Object.keys(targets)),
    'kind',
  );
}
