import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { release } from 'node:os';

import { features as askFeatures } from '../../devices.ts';
import { UblkError } from '../../errors.ts';
import type { Feature } from '../../info.ts';

/** The doctor's view of a machine. */
export interface System {
  readonly platform: string;
  /** The kernel's release, as printed by `uname -r`. */
  readonly release: string;
  readonly isRoot: boolean;
  exists(path: string): boolean;
  /** The text of a file; undefined for an unreadable file. */
  read(path: string): string | undefined;
  /** Whether this process may open the file for reading and writing. */
  mayOpen(path: string): boolean;
  /** The driver's features, or the error of the query. */
  features(): Promise<readonly Feature[] | UblkError>;
}

/** The machine of this process. */
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
