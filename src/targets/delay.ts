import { checkInteger, checkKeys } from '../check.ts';
import type { NativeTarget } from '../native.ts';
import type { Target } from './index.ts';
import { checkTarget } from './layer.ts';
import {
  PRESENTATION_KEYS,
  toNativePresentation,
  type PresentationOptions,
} from './presentation.ts';

/** What {@link targets.delay} can be asked for; times in microseconds from 0 to 2147483647. */
export interface DelayTargetOptions extends PresentationOptions {
  /**
   * How long reads wait.
   * @default 0
   */
  readonly readUs?: number | undefined;
  /**
   * How long writes, discards and writes of zeros wait.
   * @default 0
   */
  readonly writeUs?: number | undefined;
  /**
   * How long flushes wait.
   * @default that of writes
   */
  readonly flushUs?: number | undefined;
}

/** A target that answers late. */
export interface DelayTarget extends DelayTargetOptions {
  readonly kind: 'delay';
  readonly target: Target;
}

const KEYS = ['readUs', 'writeUs', 'flushUs', ...PRESENTATION_KEYS];
const MAX_US = 2 ** 31 - 1;

/**
 * A target that passes requests on to another after a while (device-mapper's `delay`). Each request
 * waits by itself: others overtake it, and no thread is blocked. For tests of what is slow.
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

/** Checks a delay and puts it as the addon takes it, over what its child became. */
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
