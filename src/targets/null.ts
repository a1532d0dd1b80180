import { checkKeys } from '../check.ts';
import { wrong } from '../errors.ts';
import type { NativeTarget } from '../native.ts';
import { parseSize, type Size } from '../size.ts';
import { freezeWithIntegrity, toNativeIntegrity, type IntegrityOptions } from './integrity.ts';
import {
  PRESENTATION_KEYS,
  toNativePresentation,
  type PresentationOptions,
} from './presentation.ts';

/** Options of {@link targets.null}. */
export interface NullTargetOptions extends PresentationOptions {
  /** The size of the device, a multiple of 512 bytes. */
  readonly size: Size;
  /**
   * Metadata, discarded like the data (Linux 7.0).
   * @default none
   */
  readonly integrity?: IntegrityOptions | undefined;
}

/** A target that discards writes and completes every request at once. */
export interface NullTarget extends NullTargetOptions {
  readonly kind: 'null';
}

/**
 * A target that completes every request at once and keeps nothing: reads return undefined bytes. For
 * measurements of ublk's own cost.
 *
 * @example
 * await using device = await createDevice({ target: targets.null({ size: '1GiB' }) });
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function nullTarget(options: NullTargetOptions): NullTarget {
  checkKeys(options, 'targets.null()', ['size', 'integrity', ...PRESENTATION_KEYS]);
  const target: NullTarget = { ...options, kind: 'null' };
  toNativeNull(target);
  return freezeWithIntegrity(target);
}

/** Checks a null target and converts the target for the addon. */
export function toNativeNull(target: NullTarget): NativeTarget {
  checkKeys(target, 'a null target', ['kind', 'size', 'integrity', ...PRESENTATION_KEYS]);
  const { integrity } = target;
  const size = parseSize(target.size);
  if (size === 0) throw wrong('size', 'is 0; a device has one block at least');
  return {
    kind: 'null',
    size,
    ...toNativePresentation(target),
    ...(integrity === undefined ? {} : { integrity: toNativeIntegrity(integrity, false) }),
  };
}
