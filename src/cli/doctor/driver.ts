import type { Finding } from './finding.ts';
import type { System } from './system.ts';

const CONTROL = '/dev/ublk-control';

/** Kernel releases with known defects that affect ublk servers. */
const KNOWN_BAD: readonly { release: RegExp; what: string; status: 'warn' | 'fail' }[] = [
  {
    release: /^6\.17\.0-\d+-aws/,
    what: 'this kernel crashes when a ublk device is added (ublk_init_queues)',
    status: 'fail',
  },
  {
    release: /^6\.18\.4(\D|$)/,
    what: 'this kernel crashes when a ublk device is added (ublk_init_queues)',
    status: 'fail',
  },
  {
    release: /^6\.17\.0(\D|$)/,
    what: 'a killed server can leave processes that never end, until the next boot',
    status: 'warn',
  },
  {
    release: /^(6\.18\.40|7\.0\.\d+)(\D|$)/,
    what: 'control commands are sometimes never answered; they time out then',
    status: 'warn',
  },
];

/** Checks that the system is Linux. */
export function platform(system: System): Finding {
  const name = 'platform';
  if (system.platform === 'linux') return { name, status: 'ok', detail: 'Linux' };
  const detail = `ublk is a driver of the Linux kernel; this is ${system.platform}`;
  return { name, status: 'fail', detail, fix: 'run it on Linux, for example in a virtual machine' };
}

/** Reports the kernel's release and known defects. */
export function kernel({ release }: System): Finding {
  const name = 'kernel';
  const bad = KNOWN_BAD.find((one) => one.release.test(release));
  if (bad === undefined) return { name, status: 'ok', detail: release };
  const { status, what } = bad;
  return { name, status, detail: `${release}: ${what}`, fix: 'boot a newer kernel' };
}

/** Checks that the driver is loaded. */
export function driver(system: System): Finding {
  const name = 'driver';
  if (system.exists(CONTROL) || system.exists('/sys/module/ublk_drv')) {
    return { name, status: 'ok', detail: 'ublk_drv is loaded' };
  }
  const modules = system.read(`/lib/modules/${system.release}/modules.dep`) ?? '';
  if (modules.includes('/ublk_drv.ko')) {
    const detail = 'ublk_drv is installed but not loaded';
    return { name, status: 'fail', detail, fix: 'sudo modprobe ublk_drv' };
  }
  return {
    name,
    status: 'fail',
    detail: 'this kernel has no ublk_drv',
    fix:
      'install the rest of its modules (Ubuntu: sudo apt install ' +
      `linux-modules-extra-${system.release}) or a kernel with CONFIG_BLK_DEV_UBLK`,
  };
}

/** Checks that this user may create devices. */
export function control(system: System): Finding {
  const name = 'permission';
  if (!system.exists(CONTROL)) {
    return {
      name,
      status: 'fail',
      detail: `the driver is loaded, but there is no ${CONTROL} here`,
      fix: `give this container the device (--device ${CONTROL}), or start udev`,
    };
  }
  if (system.mayOpen(CONTROL)) return { name, status: 'ok', detail: `may use ${CONTROL}` };
  return { name, status: 'fail', detail: `may not open ${CONTROL}`, fix: 'run it with sudo' };
}
