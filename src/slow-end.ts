import { deviceUsers } from './devices.ts';
import { UblkError, UblkErrorCode } from './errors.ts';

/** How long a device may take to end before a warning says what the device waits for, in milliseconds. */
const PATIENCE_MS = 3000;

/**
 * Warns once, with the users of the device, if the device has not ended three seconds from now: before the
 * kernel lets a device go, the kernel writes back what clients have left in the page cache.
 */
export function warnOfSlowEnd(
  { id, path }: { readonly id: number; readonly path: string },
  warn: (warning: UblkError) => void,
): Disposable {
  let isOver = false;
  const say = async (): Promise<void> => {
    const users = await deviceUsers(id).catch(() => undefined);
    if (isOver || users === undefined) return;
    const message = `${path} has not ended after 3 s; its users: ${users.text}`;
    const hint = 'the kernel writes back what they have left in the page cache, and requests end';
    warn(new UblkError(UblkErrorCode.Busy, message, { hint }));
  };
  const timer = setTimeout(() => void say(), PATIENCE_MS).unref();
  return {
    [Symbol.dispose]: () => {
      isOver = true;
      clearTimeout(timer);
    },
  };
}
