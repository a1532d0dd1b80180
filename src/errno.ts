import { constants } from 'node:os';

// Two names share an errno: these are left out, since the kernel's sources use the other name.
const ALIASES = ['EWOULDBLOCK', 'ENOTSUP'];
const NAMES = new Map<number, string>(
  Object.entries(constants.errno)
    .filter(([name]) => !ALIASES.includes(name))
    .map(([name, errno]) => [errno, name]),
);

/** The name of a positive errno: `'EIO'`. Node.js itself names only the errnos of libuv. */
export function errnoName(errno: number): string {
  return NAMES.get(errno) ?? `errno ${errno}`;
}
