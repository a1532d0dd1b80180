import { expect } from 'vitest';

import type { Device } from '../src/index.ts';

/** How long a device may take to recover, in an emulated machine under load. */
const LIMIT_MS = 120_000;

/** Waits until clients have been served a hundred more reads and a hundred more writes. */
export async function servesOn(device: Pick<Device, 'stats'>): Promise<void> {
  const { reads, writes } = device.stats().total;
  await expect
    .poll(
      () => {
        const now = device.stats().total;
        return Math.min(now.reads - reads, now.writes - writes);
      },
      { timeout: LIMIT_MS },
    )
    .toBeGreaterThan(100);
}
