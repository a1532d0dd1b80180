import { checkBoolean, checkInteger, checkKeys } from './check.ts';
import { UblkError, UblkErrorCode, unwrap, wrong } from './errors.ts';
import { lockMemory } from './lock-memory.ts';
import { type NativeDevice, type NativeEnd, type NativePool, native } from './native.ts';
import { once } from './once.ts';

/** Options of {@link createReactorPool}. */
export interface ReactorPoolOptions {
  /**
   * The number of reactors, 1 to 1024: threads with an io_uring each.
   * @default 1
   */
  readonly reactors?: number | undefined;
  /**
   * The number of reactors, `reactors` to 1024, up to which the pool adds a reactor for a device that
   * has no room in the tables of the others. Added reactors stay until the end of the pool.
   * @default `reactors`
   */
  readonly maxReactors?: number | undefined;
  /**
   * The time that an idle reactor looks for work before sleeping, in microseconds, 0 to 1000000.
   * @default 0
   */
  readonly spinUsec?: number | undefined;
  /**
   * Whether everything that the reactors touch stays in memory: see {@link ServingOptions.lockMemory}.
   * @default false
   */
  readonly lockMemory?: boolean | undefined;
}

/** The private state of a pool. */
interface Members {
  readonly native: NativePool;
  /** The paths of the served devices; undefined for a device under construction. */
  readonly devices: Map<symbol, string | undefined>;
  isClosed: boolean;
  readonly close: () => Promise<void>;
}

const pools = new WeakMap<ReactorPool, Members>();

/**
 * Reactors shared by many devices: the option `pool` of `createDevice()`. A pool keeps no event loop
 * alive; a pool that the program drops without closing ends with the last device.
 */
export class ReactorPool {
  /** @internal */
  constructor(native: NativePool) {
    const members: Members = {
      native,
      devices: new Map(),
      isClosed: false,
      close: once(async () => {
        members.isClosed = true;
        try {
          unwrap(await native.close());
        } catch (error) {
          members.isClosed = false;
          throw error;
        }
      }),
    };
    pools.set(this, members);
  }

  /** The number of running reactors: more than at the start after the pool has grown (`maxReactors`). */
  get reactors(): number {
    return membersOf(this).native.reactors();
  }

  /**
   * Ends the reactors; resolves after the end of the threads. Close all devices of the pool first.
   * Repeated calls share a promise; after an error the next call tries again.
   *
   * @throws {UblkError} `ERR_UBLK_BUSY` while the pool serves devices, with their paths; the service
   * continues.
   */
  async close(): Promise<void> {
    const members = membersOf(this);
    if (members.devices.size > 0) throw busy([...members.devices.values()]);
    await members.close();
  }

  /** {@link close}, for `await using`: declare the pool before the devices. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Starts reactors for many devices: an idle device then costs the memory of its tags and no thread.
 * Queues on the same reactor share a CPU. A reactor has room for 16,384 tags with zero copy and for as
 * many files as the process may open, at most 32,768; a queue needs two files and the target's files.
 * When the tables are full, a pool with `maxReactors` adds a reactor, and another pool refuses the
 * device (`ERR_UBLK_RESOURCES`).
 *
 * @example
 * await using pool = await createReactorPool({ reactors: 2 });
 * const disks = await Promise.all(
 *   images.map((image) => createDevice({ target: targets.file(image), pool })),
 * );
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`, `ERR_UBLK_NO_IO_URING`.
 */
export async function createReactorPool(options: ReactorPoolOptions = {}): Promise<ReactorPool> {
  checkKeys(options, 'createReactorPool()', ['reactors', 'maxReactors', 'spinUsec', 'lockMemory']);
  const reactors = checkInteger(options.reactors ?? 1, 'reactors', 1, 1024);
  const most = checkInteger(options.maxReactors ?? reactors, 'maxReactors', reactors, 1024);
  const spin = checkInteger(options.spinUsec ?? 0, 'spinUsec', 0, 1_000_000);
  if (checkBoolean(options.lockMemory ?? false, 'lockMemory')) lockMemory();
  return new ReactorPool(unwrap(await native().createPool(reactors, most, spin)));
}

/** @internal Checks that the pool can serve another device. */
export function checkPool(pool: ReactorPool): void {
  if (!membersOf(pool).isClosed) return;
  throw new UblkError(UblkErrorCode.Closed, 'the pool is closed', {
    hint: 'make another with createReactorPool()',
  });
}

/** @internal Creates a device with `make` on a pool; the pool lists the device until it has `ended`. */
export async function createIn(
  pool: ReactorPool,
  ended: Promise<NativeEnd>,
  make: (native: NativePool) => Promise<NativeDevice>,
): Promise<NativeDevice> {
  checkPool(pool);
  const { native, devices } = membersOf(pool);
  const place = Symbol();
  devices.set(place, undefined);
  try {
    const device = await make(native);
    devices.set(place, device.info().path);
    void ended.then(() => devices.delete(place));
    return device;
  } catch (error) {
    devices.delete(place);
    throw error;
  }
}

function membersOf(pool: ReactorPool): Members {
  const found = pools.get(pool);
  if (found) return found;
  throw wrong('pool', 'is no pool; it must come from createReactorPool()');
}

function busy(devices: readonly (string | undefined)[]): UblkError {
  const names = devices.map((path) => path ?? 'a device that is being created');
  return new UblkError(UblkErrorCode.Busy, `the pool serves ${names.join(', ')}`, {
    hint: 'close its devices first',
  });
}
