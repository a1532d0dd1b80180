// Which accelerator works here. A /dev/kvm may exist and still fail, so it is tried.

import { access, constants, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { cacheDir } from '../scripts/cache.ts';
import { accelerationArguments } from './qemu.ts';

/** Far more than KVM needs to boot a kernel; a machine whose KVM fails often just stops. */
const TRIAL_SECONDS = 20;

/** `kvm` when a kernel boots under it, else `tcg`. Tried once per boot of this machine. */
export async function chooseAccelerator(image: string, initramfs: string): Promise<'kvm' | 'tcg'> {
  const usable = await access('/dev/kvm', constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
  if (!usable) return 'tcg';
  const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  const record = join(cacheDir(), 'accelerator');
  const [triedAt, result] = (await readFile(record, 'utf8').catch(() => '')).trim().split(' ');
  if (triedAt === boot && (result === 'kvm' || result === 'tcg')) return result;
  const chosen = (await bootsUnderKvm(image, initramfs)) ? 'kvm' : 'tcg';
  await mkdir(cacheDir(), { recursive: true });
  await writeFile(record, `${boot} ${chosen}\n`);
  return chosen;
}

async function bootsUnderKvm(image: string, initramfs: string): Promise<boolean> {
  const bare = '-nodefaults -no-user-config -display none -no-reboot -m 512M -serial stdio';
  const kernel = ['-kernel', image, '-initrd', initramfs];
  const append = ['-append', 'console=ttyS0 panic=-1 quiet vm_trial=1'];
  const trial = execa(
    'qemu-system-x86_64',
    [...bare.split(' '), ...kernel, ...append, ...accelerationArguments('kvm')],
    { reject: false, stdin: 'ignore', timeout: TRIAL_SECONDS * 1000, killSignal: 'SIGKILL' },
  );
  // "KVM internal error" leaves QEMU paused, not ended.
  trial.stderr.on('data', () => trial.kill('SIGKILL'));
  const { stdout } = await trial;
  return stdout.includes('trial boot reached user space');
}
