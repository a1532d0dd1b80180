import { createRequire } from 'node:module';

import type * as addon from '../native/binding.cjs';
import { UblkError, UblkErrorCode } from './errors.ts';
import { unloaded } from './unloaded.ts';

// napi-rs generates the declarations from `crates/ublk-node`; they are in the repository, since lint, docs
// and editors need them before a build.
export type * from '../native/binding.cjs';

/** The addon. Promises never reject and functions never throw: an `Outcome` holds a failure. */
export type Binding = typeof addon;

/** What makes devices: the addon, with reactors for each device, or a pool. */
export type NativeMaker = Pick<Binding, 'createDevice' | 'recoverDevice'>;

let binding: Binding | undefined;

/**
 * The addon, loaded by the first call.
 *
 * @throws {UblkError} `ERR_UBLK_UNSUPPORTED_PLATFORM`, `ERR_UBLK_NO_ADDON`.
 */
export function native(): Binding {
  binding ??= load(requireFrom(import.meta.url), process.platform, process.arch);
  return binding;
}

/** Loads the addon with `require`; separate from {@link native} for tests. */
export function load(
  require: (id: string) => unknown,
  platform: string,
  architecture: string,
): Binding {
  if (platform !== 'linux') {
    throw new UblkError(
      UblkErrorCode.UnsupportedPlatform,
      `ublk is a driver of the Linux kernel; this is ${platform}`,
      { hint: 'run this program on Linux, for example in a virtual machine' },
    );
  }
  try {
    return require(LOADER) as Binding;
  } catch (cause) {
    throw unloaded(cause, architecture);
  }
}

/** The program that finds and loads the addon, beside the folder of this file. */
const LOADER = '../native/binding.cjs';

/** In a bundle of CommonJS a file has no URL. */
function requireFrom(url: string | undefined): (id: string) => unknown {
  return url === undefined ? refuseBundle : createRequire(url);
}

function refuseBundle(): never {
  throw new Error(`Cannot find module '${LOADER}'`);
}
