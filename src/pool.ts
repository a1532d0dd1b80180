import { checkInteger, checkKeys } from './check.ts';
import { invalid, unwrap } from './errors.ts';
import { type NativePool, native } from './native.ts';

/** What {@link createReactorPool} is asked for. */
export interface ReactorPoolOptions {
  /**
   * Reactors, 1 to 1024: each is a thread with an io_uring.
   * @default 1
   */
  readonly reactors?: number | undefined;
  /**
   * How long each looks for work before it sleeps, in microseconds, 0 to 1000000; 0: not at all.
   * @default 0
   */
  readonly spinUsec?: number | undefined;
}

const pools = new WeakMap<ReactorPool, NativePool>();

/**
 * Reactors that many devices share, given to `createDevice()` as `pool`. A pool that is forgotten
 * ends with its last device; it keeps no event loop alive.
 */
export class ReactorPool {
  /** How many reactors it has. */
  readonly reactors: number;

  /** @internal */
  constructor(native: NativePool, reactors: number) {
    this.reactors = reactors;
    pools.set(this, native);
  }
}

/**
 * Starts reactors for many devices: what an idle device costs is then its tags' memory and a
 * thread that sleeps. Queues that share a reactor share its CPU. A reactor takes 16,384 tags with
 * zero copy, and as many files as the process may have open, 4096 at most; a queue takes two and
 * those of its target.
 *
 * @example
 * const pool = await createReactorPool({ reactors: 2 });
 * const disks = await Promise.all(
 *   images.map((image) => createDevice({ target: targets.file(image), pool })),
 * );
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`, `ERR_UBLK_NO_IO_URING`.
 */
export async function createReactorPool(options: ReactorPoolOptions = {}): Promise<ReactorPool> {
  checkKeys(options, 'createReactorPool()', ['reactors', 'spinUsec']);
  const reactors = checkInteger(options.reactors ?? 1, 'reactors', 1, 1024);
  const spin = checkInteger(options.spinUsec ?? 0, 'spinUsec', 0, 1_000_000);
  return new ReactorPool(unwrap(await native().createPool(reactors, spin)), reactors);
}

/** @internal The addon's side of a pool. */
export function nativePool(pool: ReactorPool): NativePool {
  const found = pools.get(pool);
  if (found) return found;
  throw invalid('pool is no pool; it must come from createReactorPool()');
}
