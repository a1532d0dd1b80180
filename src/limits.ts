import { checkInteger, checkKeys } from './check.ts';
import { wrong } from './errors.ts';
import type { NativeLimits } from './native.ts';
import { parseSize, type Size } from './size.ts';

/**
 * Limits on the segments and the memory of clients' requests, where narrower than the target's own
 * limits (Linux 6.15). `/sys/block/ublkbN/queue` shows the limits in force.
 */
export interface DeviceLimits {
  /**
   * The alignment of memory for direct I/O: a power of two up to 4096 bytes (sysfs shows
   * `dma_alignment`, smaller by 1).
   */
  readonly dmaAlignment?: Size | undefined;
  /** The largest number of segments of a request, 1 to 65535 (`max_segments`). */
  readonly maxSegments?: number | undefined;
  /** The size of the longest segment: 4 KiB or more (`max_segment_size`). */
  readonly maxSegmentSize?: Size | undefined;
  /** No segment crosses a multiple of this size: a power of two, 4 KiB or more. */
  readonly segmentBoundary?: Size | undefined;
}

const KEYS = ['dmaAlignment', 'maxSegments', 'maxSegmentSize', 'segmentBoundary'];
const PAGE = 4096;

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` */
export function toNativeLimits(limits: DeviceLimits): NativeLimits {
  checkKeys(limits, 'limits', KEYS, 'limits');
  const { dmaAlignment, maxSegments, maxSegmentSize, segmentBoundary } = limits;
  return {
    ...(dmaAlignment === undefined
      ? {}
      : { dmaAlignment: powerOfTwo(dmaAlignment, 'limits.dmaAlignment', 1, PAGE) }),
    ...(maxSegments === undefined
      ? {}
      : { maxSegments: checkInteger(maxSegments, 'limits.maxSegments', 1, 65_535) }),
    ...(maxSegmentSize === undefined ? {} : { maxSegmentSize: segmentSize(maxSegmentSize) }),
    ...(segmentBoundary === undefined
      ? {}
      : { segmentBoundary: powerOfTwo(segmentBoundary, 'limits.segmentBoundary', PAGE, 2 ** 52) }),
  };
}

function powerOfTwo(size: Size, name: string, min: number, max: number): number {
  const bytes = parseSize(size, name);
  if (bytes >= min && bytes <= max && Number.isInteger(Math.log2(bytes))) return bytes;
  throw wrong(name, `is ${size}; it must be a power of two from ${min} to ${max}`);
}

function segmentSize(size: Size): number {
  const name = 'limits.maxSegmentSize';
  const bytes = parseSize(size, name);
  if (bytes >= PAGE && bytes <= 0xffff_ffff) return bytes;
  throw wrong(name, `is ${size}; it must be from 4 KiB to 4 GiB less one byte`);
}
