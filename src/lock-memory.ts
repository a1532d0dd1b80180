import { invalid, unwrap } from './errors.ts';
import { isHandler } from './handler/handler.ts';
import { isHandlerModule } from './handler/module.ts';
import { native } from './native.ts';

/** @internal Checks that all memory behind a device's requests can be locked. */
export function checkLockable(target: object): void {
  if (!isHandler(target) && !isHandlerModule(target)) return;
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
