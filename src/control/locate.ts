import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';

import { UblkError } from '../errors.ts';
import { ServiceClient } from './client.ts';

/** How long a service may take to describe itself and its devices, in milliseconds. */
const PATIENCE_MS = 30_000;

/** A device of a service, by its name there. */
export interface DeviceOfService {
  readonly client: ServiceClient;
  readonly name: string;
}

/**
 * The service in the process `pid`, and the name of the device `id` in the service; nothing, where there
 * is no such service, or the service does not answer in time.
 */
export async function findInService(
  pid: number | undefined,
  id: number,
): Promise<DeviceOfService | undefined> {
  const client = await serviceOf(pid);
  if (client === undefined) return undefined;
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const device = (await client.devices({ signal }).catch(ignore))?.find((one) => one.id === id);
  return device && { client, name: device.name };
}

/**
 * The service in a process, if the process has one and this user may speak to it. Sockets whose name
 * begins with `ublk` are asked.
 *
 * @param signal Gives the search up; by default after 30 s for each socket.
 */
export async function serviceOf(
  pid: number | undefined,
  signal?: AbortSignal,
): Promise<ServiceClient | undefined> {
  if (pid === undefined) return undefined;
  for (const path of listeningSockets(pid)) {
    if (!basename(path).startsWith('ublk')) continue;
    const client = new ServiceClient(path);
    const limit = signal ?? AbortSignal.timeout(PATIENCE_MS);
    const info = await client.info({ signal: limit }).catch(ignore);
    if (info?.pid === pid) return client;
  }
  return undefined;
}

function ignore(error: unknown): undefined {
  if (UblkError.is(error) || (error as Error).name === 'AbortError') return undefined;
  throw error;
}

/** The Unix sockets with a path at which a process listens; none, where this user may not look. */
function listeningSockets(pid: number): string[] {
  try {
    const inodes = new Set(
      readdirSync(`/proc/${pid}/fd`).map((fd) => {
        return /^socket:\[(\d+)\]$/.exec(linkOf(`/proc/${pid}/fd/${fd}`))?.[1];
      }),
    );
    const lines = readFileSync(`/proc/${pid}/net/unix`, 'utf8').split('\n');
    return lines.flatMap((line) => {
      // Num: RefCount Protocol Flags Type St Inode Path; the flag is __SO_ACCEPTCON.
      const [, flags, inode, path] = /^\S+ \S+ \S+ (\S+) \S+ \S+ +(\d+) (\/.*)$/.exec(line) ?? [];
      return path !== undefined && flags === '00010000' && inodes.has(inode) ? [path] : [];
    });
  } catch {
    return [];
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}
