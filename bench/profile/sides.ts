// Which of the two ends of the device each processor works for. Pure.

import type { Address, Counts } from './counts.ts';
import type { Stack } from './symbols.ts';

export type Side = 'client' | 'server';

/**
 * The kernel's code says not for whom it runs, but client and server mostly keep to a processor of
 * their own. One that runs as good as none of a side's own code works for the other; where one
 * serves both, nobody can tell them apart: `undefined`.
 */
export function sideOf(counts: Counts, stackOf: (address: Address) => Stack): Side | undefined {
  const own = { client: 0, server: 0 };
  for (const [address, count] of counts) {
    const [owner] = stackOf(address);
    if (owner === 'client' || owner === 'server') own[owner] += count;
  }
  const all = own.client + own.server;
  if (own.client < all / 10) return 'server';
  return own.server < all / 50 ? 'client' : undefined;
}

/** The stack with the kernel's part of it divided. */
export function withSide([owner = '', ...rest]: Stack, side: Side | undefined): Stack {
  return owner === 'kernel' && side ? [`kernel beside the ${side}`, ...rest] : [owner, ...rest];
}
