import { checkInteger, checkKeys } from '../check.ts';
import type { NativeTarget } from '../native.ts';
import type { Target } from './index.ts';
import { checkTarget } from './layer.ts';
import {
  PRESENTATION_KEYS,
  toNativePresentation,
  type PresentationOptions,
} from './presentation.ts';

/** Options of {@link targets.delay}; times in microseconds from 0 to 2147483647. */
export interface DelayTargetOptions extends PresentationOptions {
  /**
   * The delay of reads.
   * @default 0
   */
  readonly readUs?: number | undefined;
  /**
   * The delay of writes, discards and writes of zeros.
   * @default 0
   */
  readonly writeUs?: number | undefined;
  /**
   * The delay of flushes.
   * @default the delay of writes
   */
  readonly flushUs?: number | undefined;
}

/** A target with late answers. */
export interface DelayTarget extends DelayTargetOptions {
  readonly kind: 'delay';
  readonly target: Target;
}

const KEYS = ['readUs', 'writeUs', 'flushUs', ...PRESENTATION_KEYS];
const MAX_US = 2 ** 31 - 1;

/**
 * A target that delays the requests of another target (device-mapper's `delay`), for tests of slow
 * disks. Requests wait independently: later requests may overtake, and no thread is blocked.
 *
 * @example
 * await using device = await createDevice({
 *   target: targets.delay(targets.file('disk.img'), { readUs: 5_000 }),
 * });
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function delayTarget(child: Target, options: DelayTargetOptions = {}): DelayTarget {
  checkKeys(options, 'targets.delay()', KEYS);
  const below = checkTarget(child, 'target');
  const target: DelayTarget = Object.freeze({ ...options, kind: 'delay', target: below });
  toNativeDelay(target, []);
  return target;
}

/** Checks a delay target and converts the target for the addon, with its converted child. */
export function toNativeDelay(
  target: DelayTarget,
  children: readonly NativeTarget[],
): NativeTarget {
  checkKeys(target, 'a delay target', ['kind', 'target', ...KEYS]);
  const { readUs = 0, writeUs = 0, flushUs = writeUs } = target;
  return {
    kind: 'delay',
    targets: children,
    readUs: checkInteger(readUs, 'readUs', 0, MAX_US),
    writeUs: checkInteger(writeUs, 'writeUs', 0, MAX_US),
    flushUs: checkInteger(flushUs, 'flushUs', 0, MAX_US),
    ...toNativePresentation(target),
  };
}
