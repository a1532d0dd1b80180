import type { Server } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';

/** How long the answers under way may take at the end of a server, in milliseconds. */
const PATIENCE_MS = 1000;

/** Ends a server after the answers under way, or after a second. */
export async function closeServer(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => void server.close(() => resolve()));
  server.closeIdleConnections();
  await Promise.race([closed, pause(PATIENCE_MS, undefined, { ref: false })]);
  server.closeAllConnections();
  await closed;
}
