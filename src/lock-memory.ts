import { invalid, unwrap } from './errors.ts';
import { isHandler } from './handler/handler.ts';
import { isHandlerModule } from './handler/module.ts';
import { native } from './native.ts';

/**
 * @internal Locks the memory of the data path for a device that asks for locked memory.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for a handler, and the errors of {@link lockMemory}.
 */
export function lockMemoryFor(options: {
  readonly lockMemory?: boolean | undefined;
  target: object;
}): void {
  if (!options.lockMemory) return;
  if (!isHandler(options.target) && !isHandlerModule(options.target)) return lockMemory();
  throw invalid(
    "lockMemory and a handler exclude each other: JavaScript's memory cannot be locked",
    'do not swap to a device that JavaScript answers',
    'lockMemory',
  );
}

/**
 * @internal Locks the memory of the data path, from now to the end of the process.
 *
 * @throws {UblkError} `ERR_UBLK_PERMISSION`, `ERR_UBLK_RESOURCES`.
 */
export function lockMemory(): void {
  unwrap(native().lockMemory());
}
