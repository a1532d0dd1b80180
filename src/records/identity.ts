import { readFileSync, statSync } from 'node:fs';

/** The kernel's random number for this boot, as a UUID. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/**
 * The instance of a device: the inode of the folder in sysfs that the kernel makes with the device.
 * Differs for all devices of a boot, also for an earlier device with the same number. Absent, where no
 * device has this number.
 */
export function instanceOf(id: number): string | undefined {
  const path = `/sys/class/ublk-char/ublkc${id}`;
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.ino.toString();
}
