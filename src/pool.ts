import { checkInteger, checkKeys } from './check.ts';
import { invalid, UblkError, UblkErrorCode, unwrap } from './errors.ts';
import { type NativeDevice, type NativeEnd, type NativePool, native } from './native.ts';
import { once } from './once.ts';

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

/** What of a pool is nobody's business. */
interface Members {
  readonly native: NativePool;
  /** The paths of the devices that it serves; of a device that is being made, none yet. */
  readonly devices: Map<symbol, string | undefined>;
  isClosed: boolean;
  readonly close: () => Promise<void>;
}

const pools = new WeakMap<ReactorPool, Members>();

/**
 * Reactors that many devices share, given to `createDevice()` as `pool`. It keeps no event loop
 * alive; one that is forgotten and not closed ends with its last device.
 */
export class ReactorPool {
  /** How many reactors it has. */
  readonly reactors: number;

  /** @internal */
  constructor(native: NativePool, reactors: number) {
    this.reactors = reactors;
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

  /**
   * Ends the reactors; resolves when their threads are gone. The devices must have been closed
   * before: a pool takes nobody's disk away. Closing twice is closing once; after
   * an error the next call tries again.
   *
   * @throws {UblkError} `ERR_UBLK_BUSY` with the devices that it serves; it goes on serving then.
   */
  async close(): Promise<void> {
    const members = membersOf(this);
    if (members.devices.size > 0) throw busy([...members.devices.values()]);
    await members.close();
  }

  /** {@link close}, for `await using`: of a pool declared before its devices it comes after them. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Starts reactors for many devices: what an idle device costs is then its tags' memory and a
 * thread that sleeps. Queues that share a reactor share its CPU. A reactor takes 16,384 tags with
 * zero copy, and as many files as the process may have open, 4096 at most; a queue takes two and
 * those of its target.
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
  checkKeys(options, 'createReactorPool()', ['reactors', 'spinUsec']);
  const reactors = checkInteger(options.reactors ?? 1, 'reactors', 1, 1024);
  const spin = checkInteger(options.spinUsec ?? 0, 'spinUsec', 0, 1_000_000);
  return new ReactorPool(unwrap(await native().createPool(reactors, spin)), reactors);
}

/** @internal Checks that devices can be made on it. */
export function checkPool(pool: ReactorPool): void {
  if (!membersOf(pool).isClosed) return;
  throw new UblkError(UblkErrorCode.Closed, 'the pool is closed', {
    hint: 'make another with createReactorPool()',
  });
}

/** @internal Lets `make` make a device on a pool, which knows of it until it has `ended`. */
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
  throw invalid('pool is no pool; it must come from createReactorPool()');
}

function busy(devices: readonly (string | undefined)[]): UblkError {
  const names = devices.map((path) => path ?? 'a device that is being created');
  return new UblkError(UblkErrorCode.Busy, `the pool serves ${names.join(', ')}`, {
    hint: 'close its devices first',
  });
}
