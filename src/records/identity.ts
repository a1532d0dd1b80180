import { readFileSync, statSync } from 'node:fs';

/** The kernel's random number for this boot, as a UUID. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/**
 * What tells a device from every other device of this boot, also from an earlier one with the same
 * number: the inode of the folder that the kernel makes with the device. Nothing, where there is no
 * device with this number.
 */
export function instanceOf(id: number): string | undefined {
  const path = `/sys/class/ublk-char/ublkc${id}`;
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.ino.toString();
}
