import { UblkError } from '../../errors.ts';
import type { Feature } from '../../info.ts';
import type { Finding } from './finding.ts';

type Answer = readonly Feature[] | UblkError;

/** Reports the driver's features. */
export function features(offered: Answer): Finding {
  const name = 'features';
  if (UblkError.is(offered)) return failed(name, offered);
  const missing = offered.filter((one) => !one.supported);
  const detail = `${offered.length - missing.length} of ${offered.length}`;
  if (missing.length === 0) return { name, status: 'ok', detail };
  const names = missing.map((one) => `${one.name} (${one.since})`).join(', ');
  return { name, status: 'ok', detail: `${detail}; newer kernels have ${names}` };
}

/** Reports the best buffer mode. */
export function buffers(offered: Answer, release: string): Finding[] {
  return UblkError.is(offered) ? [] : [buffersOf(offered, release)];
}

function buffersOf(offered: readonly Feature[], release: string): Finding {
  const name = 'buffers';
  const has = (feature: string) => offered.some((one) => one.name === feature && one.supported);
  if (has('AUTO_BUF_REG')) return { name, status: 'ok', detail: 'auto: zero copy' };
  const fix = 'boot Linux 6.16 or newer';
  // Kernels before 6.15 list zero copy, but drop the feature when a device is added.
  if (has('SUPPORT_ZERO_COPY') && isAtLeast(release, 6, 15)) {
    const detail = 'register: zero copy, with two commands more per request than auto needs';
    return { name, status: 'ok', detail, fix };
  }
  return { name, status: 'warn', detail: 'copy: this kernel has no zero copy', fix };
}

function isAtLeast(release: string, major: number, minor: number): boolean {
  const [ours = 0, ourMinor = 0] = release.split('.').map((part) => Number.parseInt(part, 10));
  return ours > major || (ours === major && ourMinor >= minor);
}

function failed(name: string, { message, hint }: UblkError): Finding {
  return { name, status: 'fail', detail: message, ...(hint === undefined ? {} : { fix: hint }) };
}
