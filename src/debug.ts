import { debuglog, type DebugLogger } from 'node:util';

/** Says what this package does, on stderr of a program that runs with `NODE_DEBUG=ublk`. */
export const debug: DebugLogger = debuglog('ublk');
