// The test machine: a kernel that has ublk, wherever this is run.

import { ensurePackages } from '../scripts/debian.ts';
import { KERNELS, getKernel } from './kernel.ts';
import { BootError, runMachine } from './machine.ts';
import { kernelHasUblk, runHere } from './native.ts';
import { VmError, type VmOptions, type VmResult } from './options.ts';
import { hasVirtiofsd } from './virtiofsd.ts';

export { KERNELS } from './kernel.ts';
export { kernelHasUblk } from './native.ts';
export { VmError, type VmOptions, type VmResult } from './options.ts';

/** Debian packages that the machine is made of. */
export const VM_PACKAGES: readonly string[] = [
  'qemu-system-x86',
  'busybox-static',
  'cpio',
  'kmod',
  'xz-utils',
  'zstd',
  'udev',
];

/** Debian packages that tests and measurements run in the machine. */
export const TEST_PACKAGES: readonly string[] = [
  'fio',
  'e2fsprogs',
  'xfsprogs',
  'btrfs-progs',
  'dosfstools',
  'libnbd-bin',
  'nbdkit',
  'openssl',
  'qemu-utils',
];

/** What makes a guest unfit is chance, so one that is fit comes soon. */
const BOOTS = 4;

/**
 * Runs a command under a kernel that has ublk: the running one, if it does and nothing else is
 * asked for, or one in a virtual machine that sees this machine's files and keeps no changes.
 * Rejects with a VmError when the machine fails, and with the signal's reason when ended by it.
 */
export async function runInVm(options: VmOptions): Promise<VmResult> {
  using own = options.signal ? undefined : abortOnSignals();
  const signal = options.signal ?? own!.signal;
  const { kernel, icount, disk, init, root, qemu } = options;
  const isSpecial = kernel ?? icount ?? disk ?? init ?? root ?? qemu;
  if (!isSpecial && (await kernelHasUblk())) {
    return await runHere({ ...options, signal });
  }
  if (process.arch !== 'x64') {
    throw new VmError(`The test machine is made for x86-64; this processor is ${process.arch}.`);
  }
  await ensurePackages(VM_PACKAGES, 'run the test machine');
  if (!hasVirtiofsd()) await ensurePackages(['virtiofsd'], 'run the test machine');
  if (init === 'systemd') await ensurePackages(['systemd'], 'boot the test machine with systemd');
  const machine = await getKernel(kernel ?? KERNELS[0]!);
  for (let boot = 1; ; boot += 1) {
    try {
      return await runMachine(machine, options, signal);
    } catch (error) {
      if (!(error instanceof BootError) || boot === BOOTS) throw error;
      console.error(`${error.message.split('\n')[0]} It is booted again.`);
    }
  }
}

/** An AbortSignal that the signals which end a program trigger; its reason is a SignalError. */
export function abortOnSignals(): Disposable & { signal: AbortSignal } {
  const controller = new AbortController();
  const stop = (name: NodeJS.Signals) => controller.abort(new SignalError(name));
  const names = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const name of names) process.on(name, stop);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      for (const name of names) process.off(name, stop);
    },
  };
}

export class SignalError extends Error {
  override name = 'SignalError';
  readonly signal: NodeJS.Signals;

  constructor(signal: NodeJS.Signals) {
    super(`ended by ${signal}`);
    this.signal = signal;
  }
}
