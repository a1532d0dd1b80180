import { checkKeys } from '../check.ts';
import type { NativeTarget } from '../native.ts';
import type { Target } from './index.ts';
import { checkTargets } from './layer.ts';

/** Targets one behind another. */
export interface LinearTarget {
  readonly kind: 'linear';
  readonly targets: readonly Target[];
}

/**
 * A target that puts others one behind another (device-mapper's `linear`): the second begins where
 * the first ends.
 *
 * @example
 * await using device = await createDevice({
 *   target: targets.linear([targets.file('first.img'), targets.error({ size: '1MiB' })]),
 * });
 *
 * @param children 1 to 64 targets, in order.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function linearTarget(children: readonly Target[]): LinearTarget {
  const copy = Object.freeze([...checkTargets(children, 'targets')]);
  return Object.freeze({ kind: 'linear', targets: copy });
}

/** Checks a linear target and puts it as the addon takes it, over what its children became. */
export function toNativeLinear(
  target: LinearTarget,
  children: readonly NativeTarget[],
): NativeTarget {
  checkKeys(target, 'a linear target', ['kind', 'targets']);
  return { kind: 'linear', targets: children };
}
