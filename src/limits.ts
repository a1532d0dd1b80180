import { checkInteger, checkKeys } from './check.ts';
import { invalid } from './errors.ts';
import type { NativeLimits } from './native.ts';
import { parseSize, type Size } from './size.ts';

/**
 * How clients' requests are cut up, and what memory they may lie in, where that shall be narrower
 * than the target needs (Linux 6.15). `/sys/block/ublkbN/queue` shows them.
 */
export interface DeviceLimits {
  /**
   * What the memory of direct I/O must be aligned to: a power of two up to 4096 bytes
   * (`dma_alignment`, which is one less).
   */
  readonly dmaAlignment?: Size | undefined;
  /** Most segments of a request, 1 to 65535 (`max_segments`). */
  readonly maxSegments?: number | undefined;
  /** The longest segment: 4 KiB or more (`max_segment_size`). */
  readonly maxSegmentSize?: Size | undefined;
  /** No segment crosses a multiple of it: a power of two, 4 KiB or more. */
  readonly segmentBoundary?: Size | undefined;
}

const KEYS = ['dmaAlignment', 'maxSegments', 'maxSegmentSize', 'segmentBoundary'];
const PAGE = 4096;

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` */
export function toNativeLimits(limits: DeviceLimits): NativeLimits {
  checkKeys(limits, 'limits', KEYS);
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
  throw invalid(`${name} is ${size}; it must be a power of two from ${min} to ${max}`);
}

function segmentSize(size: Size): number {
  const bytes = parseSize(size, 'limits.maxSegmentSize');
  if (bytes >= PAGE && bytes <= 0xffff_ffff) return bytes;
  throw invalid(`limits.maxSegmentSize is ${size}; it must be from 4 KiB to 4 GiB less one byte`);
}
