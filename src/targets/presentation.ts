import { checkBoolean } from '../check.ts';
import { wrong } from '../errors.ts';
import type { NativeTarget } from '../native.ts';

/** Properties of a device that a target can narrow for clients. */
export interface PresentationOptions {
  /**
   * Whether the device refuses writes. The options of a file below a layer decide how ublk opens the
   * file.
   * @default false; `true` where a target below a layer refuses writes
   */
  readonly readOnly?: boolean | undefined;
  /**
   * The unit of addressing in bytes: 512, 1024, 2048 or 4096; for a layer, at least the largest unit of
   * the children. The device leaves out a last, partial block.
   * @default 512; for a layer, the largest unit of the children
   */
  readonly logicalBlockSize?: number | undefined;
}

/** The keys of {@link PresentationOptions}. */
export const PRESENTATION_KEYS: readonly string[] = ['readOnly', 'logicalBlockSize'];

/** Checks the options and converts the options for the addon. */
export function toNativePresentation(
  target: PresentationOptions,
): Pick<NativeTarget, 'readOnly' | 'logicalBlockSize'> {
  const { readOnly, logicalBlockSize } = target;
  return {
    ...(readOnly === undefined ? {} : { readOnly: checkBoolean(readOnly, 'readOnly') }),
    ...(logicalBlockSize === undefined ? {} : { logicalBlockSize: checkBlock(logicalBlockSize) }),
  };
}

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` unless the kernel accepts the block size. */
export function checkBlock(value: unknown): number {
  if (value === 512 || value === 1024 || value === 2048 || value === 4096) return value;
  throw wrong('logicalBlockSize', `is ${String(value)}; it must be 512, 1024, 2048 or 4096`);
}
