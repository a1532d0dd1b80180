import { constants } from 'node:os';

// Of two names of one number, the one that the kernel's sources use.
const ALIASES = ['EWOULDBLOCK', 'ENOTSUP'];
const NAMES = new Map<number, string>(
  Object.entries(constants.errno)
    .filter(([name]) => !ALIASES.includes(name))
    .map(([name, errno]) => [errno, name]),
);

/** The name of a positive errno: `'EIO'`. Node's own knows only those that libuv uses. */
export function errnoName(errno: number): string {
  return NAMES.get(errno) ?? `errno ${errno}`;
}
