import { createRequire } from 'node:module';

let known: string | undefined;

/** The version of this package. */
export function packageVersion(): string {
  known ??= (createRequire(import.meta.url)('../package.json') as { version: string }).version;
  return known;
}
