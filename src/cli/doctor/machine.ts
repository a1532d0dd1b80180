import { formatSize } from '../../size.ts';
import type { Finding } from './finding.ts';
import type { System } from './system.ts';

const SYSCTL = '/proc/sys/kernel/io_uring_disabled';
const ENOUGH_MEMLOCK = 8 << 20;

/** Checks that this user may use io_uring. */
export function ioUring(system: System): Finding {
  const name = 'io_uring';
  // Kernels before 6.6 have no such sysctl.
  const disabled = Number(system.read(SYSCTL) ?? 0);
  if (disabled === 0) return { name, status: 'ok', detail: 'allowed for everybody' };
  const fix = 'sudo sysctl kernel.io_uring_disabled=0';
  if (disabled > 1) return { name, status: 'fail', detail: 'disabled for everybody', fix };
  if (system.isRoot) return { name, status: 'ok', detail: 'allowed for root' };
  return { name, status: 'fail', detail: 'allowed only for root and the io_uring group', fix };
}

/** Reports the limit of locked memory. */
export function memlock(system: System): Finding {
  const name = 'memlock';
  const text = /^Max locked memory\s+(\S+)/m.exec(system.read('/proc/self/limits') ?? '')?.[1];
  const bytes = text === undefined || text === 'unlimited' ? Infinity : Number(text);
  if (bytes === Infinity) return { name, status: 'ok', detail: 'unlimited' };
  const detail = `${formatSize(bytes)} may be locked`;
  if (system.isRoot) return { name, status: 'ok', detail: `${detail}; root is not bound by it` };
  if (bytes >= ENOUGH_MEMLOCK) return { name, status: 'ok', detail };
  return { name, status: 'warn', detail, fix: 'ulimit -l unlimited (or LimitMEMLOCK= in a unit)' };
}

const RULES = ['/etc', '/run', '/usr/lib', '/lib'].map((at) => `${at}/udev/rules.d/97-ublk.rules`);

/** Reports whether users other than root may serve devices. */
export function unprivileged(system: System): Finding {
  const name = 'unprivileged';
  if (RULES.some((path) => system.exists(path))) {
    return { name, status: 'ok', detail: 'users who are not root may serve devices too' };
  }
  return {
    name,
    status: 'ok',
    detail: 'only root may serve devices; others need udev rules, and the option unprivileged',
    fix:
      'ublk udev-rules | sudo tee /etc/udev/rules.d/97-ublk.rules && ' +
      'sudo udevadm control --reload && sudo udevadm trigger --name-match=ublk-control',
  };
}

/** Checks that udev names device nodes and sets their permissions. */
export function udev(system: System): Finding {
  const name = 'udev';
  if (system.exists('/run/udev/control')) return { name, status: 'ok', detail: 'running' };
  return {
    name,
    status: 'warn',
    detail: 'not running: device nodes belong to root, and there are no links in /dev/disk',
    fix: 'sudo systemctl start systemd-udevd',
  };
}
