import { control, driver, kernel, platform } from './driver.ts';
import { buffers, features } from './features.ts';
import type { Finding } from './finding.ts';
import { ioUring, memlock, udev, unprivileged } from './machine.ts';
import type { System } from './system.ts';

/** Looks at everything that serving a device needs. */
export async function examine(system: System): Promise<Finding[]> {
  const where = platform(system);
  if (where.status === 'fail') return [where];
  const offered = await system.features();
  return [
    kernel(system),
    driver(system),
    control(system),
    ioUring(system),
    memlock(system),
    udev(system),
    unprivileged(system),
    features(offered),
    buffers(offered, system.release),
  ];
}
