import { checkKeys } from '../check.ts';
import type { NativeTarget } from '../native.ts';
import type { Target } from './index.ts';
import { checkTargets } from './layer.ts';
import {
  PRESENTATION_KEYS,
  toNativePresentation,
  type PresentationOptions,
} from './presentation.ts';

/** Options of {@link targets.linear}. */
export interface LinearTargetOptions extends PresentationOptions {}

/** Targets in sequence. */
export interface LinearTarget extends LinearTargetOptions {
  readonly kind: 'linear';
  readonly targets: readonly Target[];
}

/**
 * A target that joins other targets in sequence (device-mapper's `linear`): the second begins at the
 * end of the first.
 *
 * @example
 * await using device = await createDevice({
 *   target: targets.linear([targets.file('first.img'), targets.error({ size: '1MiB' })]),
 * });
 *
 * @param children 1 to 64 targets, in order.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function linearTarget(
  children: readonly Target[],
  options: LinearTargetOptions = {},
): LinearTarget {
  checkKeys(options, 'targets.linear()', PRESENTATION_KEYS);
  const copy = Object.freeze([...checkTargets(children, 'targets')]);
  const target: LinearTarget = Object.freeze({ ...options, kind: 'linear', targets: copy });
  toNativeLinear(target, []);
  return target;
}

/** Checks a linear target and converts the target for the addon, with its converted children. */
export function toNativeLinear(
  target: LinearTarget,
  children: readonly NativeTarget[],
): NativeTarget {
  checkKeys(target, 'a linear target', ['kind', 'targets', ...PRESENTATION_KEYS]);
  return { kind: 'linear', targets: children, ...toNativePresentation(target) };
}
