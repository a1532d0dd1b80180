import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';

/** The command as a program. */
export const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/** Runs `ublk` to its end, whatever that is. */
export function ublk(...args: string[]) {
  return execa('node', [CLI, ...args], { reject: false });
}

/** Starts a `ublk` that serves, and waits for its first line, which says that it does. */
export async function startServer(...args: string[]) {
  return await startServerIn({}, ...args);
}

/** The same with these variables in its environment. */
export async function startServerIn(env: Record<string, string>, ...args: string[]) {
  return await start('node', CLI, env, args);
}

/** The same by another program of Node.js, and by another copy of the command. */
export async function startServerBy(node: string, cli: string, ...args: string[]) {
  return await start(node, cli, {}, args);
}

async function start(node: string, cli: string, env: Record<string, string>, args: string[]) {
  const server = execa(node, [cli, ...args], { reject: false, buffer: true, env });
  for await (const line of createInterface({ input: server.stdout })) return { server, path: line };
  throw new Error(`ublk ${args.join(' ')} does not serve: ${(await server).stderr}`);
}
