import { checkKeys } from '../check.ts';
import { wrong } from '../errors.ts';
import type { NativeTarget } from '../native.ts';
import { parseSize, type Size } from '../size.ts';

/** Options of {@link targets.error}. */
export interface ErrorTargetOptions {
  /** The size of the device, a multiple of 512 bytes. */
  readonly size: Size;
}

/** A target that fails every request. */
export interface ErrorTarget extends ErrorTargetOptions {
  readonly kind: 'error';
}

/**
 * A target that fails every request with an I/O error (device-mapper's `error`): the broken part of
 * a `linear` target.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function errorTarget(options: ErrorTargetOptions): ErrorTarget {
  checkKeys(options, 'targets.error()', ['size']);
  const target: ErrorTarget = Object.freeze({ kind: 'error', size: options.size });
  toNativeError(target);
  return target;
}

/** Checks an error target and converts the target for the addon. */
export function toNativeError(target: ErrorTarget): NativeTarget {
  checkKeys(target, 'an error target', ['kind', 'size']);
  const size = parseSize(target.size);
  if (size === 0) throw wrong('size', 'is 0; a device has one block at least');
  return { kind: 'error', size };
}
