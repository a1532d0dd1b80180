import { existsSync } from 'node:fs';
import { join } from 'node:path';

import type { TestContext } from 'vitest';

/**
 * The full path of a program that knows the extended headers of NBD, which Debian 12 has none of. Skips the test, with
 * the reason, where `UBLK_NBD_TOOLS` names no folder with the program.
 */
export function newProgram(context: TestContext, name: string): string {
  const path = join(process.env['UBLK_NBD_TOOLS'] ?? '/nowhere', name);
  if (existsSync(path)) return path;
  return context.skip(`UBLK_NBD_TOOLS names no folder with ${name}, which \`npm test\` fetches`);
}
