import { UblkError, UblkErrorCode } from './errors.ts';

/** Known reasons for a failed load: a pattern of Node.js's message, our message and hint. */
const OBSTACLES: readonly (readonly [says: RegExp, message: string, hint: string])[] = [
  [
    /Cannot find module '\.\.\/native\/binding\.cjs'/,
    'the native addon is not beside this code, which has been bundled',
    'leave the package out of the bundle: esbuild --external:ublk, or what your bundler has for that',
  ],
  [
    /loading addons is disabled/,
    'Node.js is told not to load addons',
    'leave out --no-addons; with the permission model, add --allow-addons',
  ],
  [
    /Access to this API has been restricted/,
    'the permission model of Node.js keeps the native addon from being read',
    "add --allow-addons, and --allow-fs-read for the folders of 'ublk' and its platform package",
  ],
];

/**
 * The error that says why the addon did not load.
 *
 * @param cause The error of the generated loader.
 */
export function unloaded(cause: unknown, architecture: string): UblkError {
  const platformPackage = `ublk-linux-${architecture}-${libc()}`;
  const chain = causesOf(cause);
  for (const [says, message, hint] of OBSTACLES) {
    if (chain.some((one) => says.test(one.message))) {
      return new UblkError(UblkErrorCode.NoAddon, message, { cause, hint });
    }
  }
  const reason = realReason(chain);
  return new UblkError(
    UblkErrorCode.NoAddon,
    reason === undefined
      ? `the native addon is not there: neither the package ${platformPackage} nor a local build`
      : `the native addon does not load: ${reason}`,
    {
      cause,
      hint:
        `install ${platformPackage} (npm skips it with --omit=optional), ` +
        'or build it in a checkout with: npm run build:native',
    },
  );
}

/** An error and the chain of its causes. */
function causesOf(error: unknown): Error[] {
  const chain: Error[] = [];
  for (let one = error; one instanceof Error && !chain.includes(one); one = one.cause) {
    chain.push(one);
  }
  return chain;
}

/**
 * The generated loader tries several places, most of them missing; the error of an existing place is
 * more useful. The loader's own errors are copies without codes.
 */
function realReason(chain: readonly Error[]): string | undefined {
  const failed = chain.find(
    (one) =>
      (one as NodeJS.ErrnoException).code === 'ERR_DLOPEN_FAILED' ||
      /cannot open shared object|not found \(required by|invalid ELF header|undefined symbol/.test(
        one.message,
      ),
  );
  return failed?.message;
}

function libc(): 'gnu' | 'musl' {
  const report = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  return report.header?.glibcVersionRuntime === undefined ? 'musl' : 'gnu';
}
