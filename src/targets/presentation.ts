import { checkBoolean } from '../check.ts';
import { invalid } from '../errors.ts';
import type { NativeTarget } from '../native.ts';

/** What a target is to its clients beyond what lies behind it. */
export interface PresentationOptions {
  /**
   * Whether the device refuses writes. Files below a layer are opened as they say themselves.
   * @default false; `true` where a target below a layer refuses writes
   */
  readonly readOnly?: boolean | undefined;
  /**
   * The unit of addressing in bytes: 512, 1024, 2048 or 4096, not below that of any target below a
   * layer. What does not fill a last block is not used.
   * @default 512, or the largest of the targets below a layer
   */
  readonly logicalBlockSize?: number | undefined;
}

/** The keys of {@link PresentationOptions}. */
export const PRESENTATION_KEYS: readonly string[] = ['readOnly', 'logicalBlockSize'];

/** Checks what a target shall be to its clients, as the addon takes it. */
export function toNativePresentation(
  target: PresentationOptions,
): Pick<NativeTarget, 'readOnly' | 'logicalBlockSize'> {
  const { readOnly, logicalBlockSize } = target;
  return {
    ...(readOnly === undefined ? {} : { readOnly: checkBoolean(readOnly, 'readOnly') }),
    ...(logicalBlockSize === undefined ? {} : { logicalBlockSize: checkBlock(logicalBlockSize) }),
  };
}

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` unless it is a size that the kernel takes. */
export function checkBlock(value: unknown): number {
  if (value === 512 || value === 1024 || value === 2048 || value === 4096) return value;
  throw invalid(`logicalBlockSize is ${String(value)}; it must be 512, 1024, 2048 or 4096`);
}
