import { control, driver, kernel, platform } from './driver.ts';
import { buffers, features } from './features.ts';
import type { Finding } from './finding.ts';
import { ioUring, memlock, udev, unprivileged } from './machine.ts';
import type { System } from './system.ts';

/** Checks all requirements of serving a device. */
export async function examine(system: System): Promise<Finding[]> {
  const where = platform(system);
  if (where.status === 'fail') return [where];
  const found = driver(system);
  const machine = [ioUring(system), memlock(system), udev(system)];
  // Without the driver, checks that need the driver would only repeat the problem.
  if (found.status === 'fail') return [kernel(system), found, ...machine];
  const may = control(system);
  const rest = [kernel(system), found, may, ...machine, unprivileged(system)];
  if (may.status === 'fail') return rest;
  const offered = await system.features();
  return [...rest, features(offered), ...buffers(offered, system.release)];
}

/** A summary line: whether this machine can serve devices, and the names of the failed checks. */
export function verdict(findings: readonly Finding[]): string {
  const names = (status: Finding['status']) =>
    findings.filter((one) => one.status === status).map(({ name }) => name);
  const [failed, warned] = [names('fail'), names('warn')];
  if (failed.length > 0) return `this machine cannot serve devices: see ${failed.join(', ')}`;
  if (warned.length > 0) return `this machine can serve devices, but see ${warned.join(', ')}`;
  return 'this machine can serve devices';
}
