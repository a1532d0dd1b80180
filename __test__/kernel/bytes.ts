import { execa } from 'execa';
import { expect } from 'vitest';

import type { Device } from '../../src/index.ts';

type Disk = Pick<Device, 'path'>;

const MOST_BYTES = 256 << 20;

/**
 * Bytes of a device, past the page cache: all of them, or `length` from `offset`; both multiples
 * of the device's logical block.
 */
export async function readBytes({ path }: Disk, offset = 0, length?: number): Promise<Buffer> {
  const place = [`skip=${offset}`, ...(length === undefined ? [] : [`count=${length}`])];
  const flags = 'iflag=direct,fullblock,skip_bytes,count_bytes';
  const { stdout } = await execa('dd', [`if=${path}`, flags, ...place, 'bs=1M', 'status=none'], {
    encoding: 'buffer',
    maxBuffer: MOST_BYTES,
    // Otherwise execa takes a last byte of 10 away, from bytes as from text.
    stripFinalNewline: false,
  });
  return Buffer.from(stdout.buffer, stdout.byteOffset, stdout.byteLength);
}

/**
 * Writes bytes past the page cache, from `offset`, in requests of at most 1 MiB. `flags` are more
 * of dd's `oflag`.
 */
export async function writeBytes(
  { path }: Disk,
  offset: number,
  bytes: Buffer,
  ...flags: string[]
): Promise<void> {
  const oflag = ['oflag=direct', 'seek_bytes', ...flags].join();
  const block = `bs=${Math.min(bytes.length, 1 << 20)}`;
  // Without fullblock, dd writes each piece of a pipe as the piece comes, which may be 36 KiB long,
  // and past O_DIRECT.
  const how = ['iflag=fullblock', 'conv=notrunc,nocreat', 'status=none'];
  await execa('dd', [`of=${path}`, `seek=${offset}`, oflag, block, ...how], { input: bytes });
}

/** Expects bytes, and names the first that differ: vitest would print all of them. */
export function expectBytes(bytes: Buffer, expected: Buffer): void {
  if (bytes.equals(expected)) return;
  const differs = bytes.findIndex((byte, at) => byte !== expected[at]);
  const place = differs === -1 ? bytes.length : differs;
  const from = (all: Buffer) => `${all.toString('hex', place, place + 16)} (of ${all.length})`;
  expect.fail(`at ${place} are ${from(bytes)}, expected ${from(expected)}`);
}
