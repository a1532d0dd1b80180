import { checkKeys } from '../check.ts';
import { invalid } from '../errors.ts';
import type { NativeTarget } from '../native.ts';
import { parseSize, type Size } from '../size.ts';
import { freezeWithIntegrity, toNativeIntegrity, type IntegrityOptions } from './integrity.ts';
import {
  PRESENTATION_KEYS,
  toNativePresentation,
  type PresentationOptions,
} from './presentation.ts';

/** What {@link targets.null} is asked for. */
export interface NullTargetOptions extends PresentationOptions {
  /** The size of the device, a multiple of 512 bytes. */
  readonly size: Size;
  /**
   * Metadata that is taken and forgotten like the data (Linux 7.0).
   * @default none
   */
  readonly integrity?: IntegrityOptions | undefined;
}

/** A device that forgets what is written and completes everything at once. */
export interface NullTarget extends NullTargetOptions {
  readonly kind: 'null';
}

/**
 * A target that completes every request at once and keeps nothing: what it reads is undefined.
 * It shows what ublk itself costs.
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

/** Checks a null target and puts it as the addon takes it. */
export function toNativeNull(target: NullTarget): NativeTarget {
  checkKeys(target, 'a null target', ['kind', 'size', 'integrity', ...PRESENTATION_KEYS]);
  const { integrity } = target;
  const size = parseSize(target.size);
  if (size === 0) throw invalid('size is 0; a device has one block at least');
  return {
    kind: 'null',
    size,
    ...toNativePresentation(target),
    ...(integrity === undefined ? {} : { integrity: toNativeIntegrity(integrity, false) }),
  };
}
