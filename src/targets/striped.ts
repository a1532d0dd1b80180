import { checkKeys } from '../check.ts';
import { invalid } from '../errors.ts';
import type { NativeTarget } from '../native.ts';
import { parseSize, type Size } from '../size.ts';
import type { Target } from './index.ts';
import { checkTargets } from './layer.ts';
import {
  PRESENTATION_KEYS,
  toNativePresentation,
  type PresentationOptions,
} from './presentation.ts';

/** What {@link targets.striped} can be asked for. */
export interface StripedTargetOptions extends PresentationOptions {
  /**
   * How much lies on one target before the next has its turn: a power of two from 4 KiB to 16 MiB.
   * @default '64KiB'
   */
  readonly chunk?: Size | undefined;
}

/** Chunks laid over several targets in turn. */
export interface StripedTarget extends StripedTargetOptions {
  readonly kind: 'striped';
  readonly targets: readonly Target[];
}

/**
 * A target that lays chunks over several others in turn (device-mapper's `striped`, RAID 0), so
 * that large requests and many small ones keep all of them busy. As large as the smallest target
 * times their number, down to whole stripes.
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

/** Checks a striped target and puts it as the addon takes it, over what its children became. */
export function toNativeStriped(
  target: StripedTarget,
  children: readonly NativeTarget[],
): NativeTarget {
  checkKeys(target, 'a striped target', ['kind', 'targets', 'chunk', ...PRESENTATION_KEYS]);
  const { chunk = '64KiB' } = target;
  const bytes = parseSize(chunk, 'chunk');
  if (bytes < 4096 || bytes > 16 << 20 || (bytes & (bytes - 1)) !== 0) {
    throw invalid(`chunk is ${chunk}; it must be a power of two from 4 KiB to 16 MiB`);
  }
  return { kind: 'striped', targets: children, chunk: bytes, ...toNativePresentation(target) };
}
