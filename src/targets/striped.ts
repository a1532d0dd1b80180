import { checkKeys } from '../check.ts';
import { wrong } from '../errors.ts';
import type { NativeTarget } from '../native.ts';
import { parseSize, type Size } from '../size.ts';
import type { Target } from './index.ts';
import { checkTargets } from './layer.ts';
import {
  PRESENTATION_KEYS,
  toNativePresentation,
  type PresentationOptions,
} from './presentation.ts';

/** Options of {@link targets.striped}. */
export interface StripedTargetOptions extends PresentationOptions {
  /**
   * The size of a chunk, after which the next target follows: a power of two from 4 KiB to 16 MiB.
   * @default '64KiB'
   */
  readonly chunk?: Size | undefined;
}

/** Chunks spread over several targets in turn. */
export interface StripedTarget extends StripedTargetOptions {
  readonly kind: 'striped';
  readonly targets: readonly Target[];
}

/**
 * A target that spreads chunks over several targets in turn (device-mapper's `striped`, RAID 0): large
 * requests, and many small requests, keep all targets busy. The size is the size of the smallest
 * target times the number of targets, rounded down to whole stripes.
 *
 * @example
 * await using device = await createDevice({
 *   target: targets.striped([targets.file('/disk1/a.img'), targets.file('/disk2/b.img')]),
 * });
 *
 * @param children 1 to 64 targets, in order.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function stripedTarget(
  children: readonly Target[],
  options: StripedTargetOptions = {},
): StripedTarget {
  checkKeys(options, 'targets.striped()', ['chunk', ...PRESENTATION_KEYS]);
  const copy = Object.freeze([...checkTargets(children, 'targets')]);
  const target: StripedTarget = Object.freeze({ ...options, kind: 'striped', targets: copy });
  toNativeStriped(target, []);
  return target;
}

/** Checks a striped target and converts the target for the addon, with its converted children. */
export function toNativeStriped(
  target: StripedTarget,
  children: readonly NativeTarget[],
): NativeTarget {
  checkKeys(target, 'a striped target', ['kind', 'targets', 'chunk', ...PRESENTATION_KEYS]);
  const { chunk = '64KiB' } = target;
  const bytes = parseSize(chunk, 'chunk');
  if (bytes < 4096 || bytes > 16 << 20 || (bytes & (bytes - 1)) !== 0) {
    throw wrong('chunk', `is ${chunk}; it must be a power of two from 4 KiB to 16 MiB`);
  }
  return { kind: 'striped', targets: children, chunk: bytes, ...toNativePresentation(target) };
}
