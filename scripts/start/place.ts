// Where the job runs: on this very system, or in a virtual machine.

import { createInterface } from 'node:readline/promises';
import type { StartOptions } from './options.ts';

export interface Circumstances {
  /** Whether the running kernel has ublk. */
  ublk: boolean;
  root: boolean;
  /** Whether there is somebody to ask. */
  terminal: boolean;
}

export type Place = { native: true; ask: boolean } | { native: false; why: string };

export function choosePlace(
  options: Pick<StartOptions, 'vm' | 'kernel' | 'yes'>,
  { ublk, root, terminal }: Circumstances,
): Place {
  const vm = (why: string): Place => ({ native: false, why });
  if (options.vm || options.kernel !== undefined) return vm('as you asked');
  if (!ublk) return vm('since the running kernel has no ublk');
  if (!root) return vm('since block devices and mounts need root');
  if (!options.yes && !terminal) return vm('since nobody can be asked; --yes uses this system');
  return { native: true, ask: !options.yes };
}

const QUESTION = `This kernel has ublk. On this very system, npm start would load the modules ublk_drv and loop,
create a block device, mount it in a folder of its own under /var/tmp, and remove all of it at the
end. Or it does the same in a virtual machine, which keeps nothing.
Use this system? [y/N] `;

/** Whether the user agrees to using this system. */
export async function mayUseThisSystem(signal: AbortSignal): Promise<boolean> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  // A terminal in raw mode turns Ctrl-C into this event.
  terminal.on('SIGINT', () => process.kill(process.pid, 'SIGINT'));
  try {
    return /^y(es)?$/i.test((await terminal.question(QUESTION, { signal })).trim());
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    terminal.close();
  }
}
