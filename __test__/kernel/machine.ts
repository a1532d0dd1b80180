import { existsSync, readdirSync, readFileSync } from 'node:fs';

import { describe, expect, vi, type TestContext } from 'vitest';

import {
  createDevice,
  deleteDevice,
  features,
  UblkError,
  type Device,
  type DeviceOptions,
} from '../../src/index.ts';

/** Whether this kernel has ublk. */
export const hasUblk = existsSync('/dev/ublk-control');

/** Whether this is the throw-away machine of `npm run vm`, where a test may change settings. */
export const isTestMachine = existsSync('/run/vm/job.sh');

/** Tests that need ublk; elsewhere they are skipped, and say so. */
export function withUblk(name: string, tests: () => void): void {
  const title = hasUblk ? name : `${name} [no ublk in this kernel: npm run test:kernel]`;
  // oxlint-disable-next-line vitest/valid-describe-callback -- the caller's function has no result
  describe.runIf(hasUblk)(title, tests);
}

/** The ids of all devices that the kernel has, started or not. */
export function deviceIds(): number[] {
  return readdirSync('/sys/class/ublk-char').map((name) => Number(name.slice('ublkc'.length)));
}

/**
 * Waits until nothing of any device is left: names vanish from /dev a moment after the device.
 * What is left is removed, so that only the test that left it fails.
 */
export async function expectNoDevices(): Promise<void> {
  try {
    await vi.waitFor(
      () => {
        expect(deviceIds()).toEqual([]);
        expect(readdirSync('/dev').filter((name) => /^ublk[bc]\d/.test(name))).toEqual([]);
      },
      { timeout: 10_000, interval: 100 },
    );
  } catch (error) {
    await Promise.all(deviceIds().map((id) => deleteDevice(id, { force: true })));
    throw error;
  }
}

/** What this process holds: its threads by name, and its open files. */
export function holdings(): { threads: string[]; files: number } {
  const files = readdirSync('/proc/self/fd').length;
  return { threads: readdirSync('/proc/self/task'), files };
}

/** The device, or a skip with its reason where this kernel lacks the buffer mode. */
export async function createOrSkip(context: TestContext, options: DeviceOptions): Promise<Device> {
  try {
    return await createDevice(options);
  } catch (error) {
    if (UblkError.is(error) && error.code === 'ERR_UBLK_UNSUPPORTED') context.skip(error.message);
    throw error;
  }
}

/** Skips the test, with the reason, where the kernel lacks a feature. */
export async function need(context: TestContext, ...names: string[]): Promise<void> {
  const all = await features();
  for (const name of names) {
    const feature = all.find((one) => one.name === name);
    if (!feature?.supported) context.skip(`this kernel lacks ${name} (Linux ${feature?.since})`);
  }
}

/** PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE, which PR_SET_IO_FLUSHER sets (linux/sched.h). */
export const IO_FLUSHER = 0x180000;

/** The thread ids of a device's queues in this process. */
export function queueThreads(id: number): string[] {
  return readdirSync('/proc/self/task').filter((task) => nameOf(task).startsWith(`ublk${id}q`));
}

/** The names of the threads of this process that serve a device. */
export function serverThreads(id: number): string[] {
  const names = readdirSync('/proc/self/task').map((task) => nameOf(task).trim());
  return names.filter((name) => new RegExp(`^ublk${id}[qt]\\d+b?$`).test(name)).sort();
}

/** The name of a thread; none, if it has ended since it was listed. */
function nameOf(task: string): string {
  try {
    return readFileSync(`/proc/self/task/${task}/comm`, 'utf8');
  } catch {
    return '';
  }
}

/** The kernel's flags of a thread of this process. */
export function threadFlags(task: string): number {
  const stat = readFileSync(`/proc/self/task/${task}/stat`, 'utf8');
  const FLAGS = 6; // counted from the state, the first field after the name in parentheses
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[FLAGS]);
}
