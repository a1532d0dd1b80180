import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { release } from 'node:os';

import { features as askFeatures } from '../../devices.ts';
import { UblkError } from '../../errors.ts';
import type { Feature } from '../../info.ts';

/** What the doctor looks at. */
export interface System {
  readonly platform: string;
  /** The kernel's release, as `uname -r` says. */
  readonly release: string;
  readonly isRoot: boolean;
  exists(path: string): boolean;
  /** The text of a file; undefined if it cannot be read. */
  read(path: string): string | undefined;
  /** Whether this process may open it for reading and writing. */
  mayOpen(path: string): boolean;
  /** The driver's features, or why they cannot be asked. */
  features(): Promise<readonly Feature[] | UblkError>;
}

/** The machine that this runs on. */
export const thisSystem: System = {
  platform: process.platform,
  release: release(),
  isRoot: process.getuid?.() === 0,
  exists: existsSync,
  read: (path) => attempt(() => readFileSync(path, 'utf8')),
  mayOpen: (path) =>
    attempt(() => (accessSync(path, constants.R_OK | constants.W_OK), true)) ?? false,
  features: async () => {
    try {
      return await askFeatures();
    } catch (error) {
      if (UblkError.is(error)) return error;
      throw error;
    }
  },
};

function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}
