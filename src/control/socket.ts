import { execFile } from 'node:child_process';
import { chmodSync, chownSync, lstatSync, rmSync, type Stats } from 'node:fs';
import type { Server } from 'node:http';
import { connect } from 'node:net';
import { promisify } from 'node:util';

import { invalid, messageOf, UblkError, UblkErrorCode } from '../errors.ts';

/** The longest path of a Unix socket, in bytes (`sun_path` without its last byte). */
const LONGEST = 107;

/**
 * Lets `server` listen at a path: for the user alone, or for a group too. Replaces the socket of a
 * server that is dead, and nothing else.
 *
 * @param group The id of a group that may connect, too.
 * @throws {UblkError} `ERR_UBLK_BUSY` where a living server listens; `ERR_UBLK_INVALID_ARGUMENT` for
 * a path that cannot be a socket.
 */
export async function listenAt(server: Server, path: string, group?: number): Promise<void> {
  if (Buffer.byteLength(path) > LONGEST) {
    throw invalid(`the socket's path ${path} is too long`, `take ${LONGEST} bytes or fewer`);
  }
  const before = lookAt(path);
  if (before !== undefined) {
    if (!before.isSocket()) {
      throw invalid(`${path} is there and no socket`, 'give the control socket another path');
    }
    if (await answers(path)) throw taken(path);
    // Another server may have replaced the dead socket meanwhile.
    if (isSame(before, lookAt(path))) rmSync(path, { force: true });
  }
  await bind(server, path);
  try {
    if (group !== undefined) chownSync(path, -1, group);
    chmodSync(path, group === undefined ? 0o600 : 0o660);
  } catch (error) {
    server.close();
    throw refused(path, error);
  }
}

/** The socket is nobody else's from its first moment: the mask of the process covers the bind. */
async function bind(server: Server, path: string): Promise<void> {
  const { promise, resolve, reject } = withResolvers();
  server.once('listening', resolve).once('error', reject);
  const mask = process.umask(0o177);
  try {
    server.listen(path);
  } finally {
    process.umask(mask);
  }
  try {
    await promise;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') throw taken(path);
    throw refused(path, error);
  } finally {
    server.off('listening', resolve).off('error', reject);
  }
}

function withResolvers(): {
  promise: Promise<void>;
  resolve: () => void;
  reject: (error: unknown) => void;
} {
  let resolve!: () => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<void>((yes, no) => ([resolve, reject] = [yes, no]));
  return { promise, resolve, reject };
}

function lookAt(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

function isSame(before: Stats, now: Stats | undefined): boolean {
  return now !== undefined && before.ino === now.ino && before.ctimeMs === now.ctimeMs;
}

/** Whether a process listens at a socket. */
async function answers(path: string): Promise<boolean> {
  const { promise, resolve, reject } = withResolvers();
  const socket = connect(path, resolve).once('error', reject);
  try {
    await promise;
    return true;
  } catch (error) {
    // A full queue or a missing right are the answers of a living server.
    const { code } = error as NodeJS.ErrnoException;
    return code !== 'ECONNREFUSED' && code !== 'ENOENT';
  } finally {
    socket.destroy();
  }
}

function taken(path: string): UblkError {
  const hint = 'stop the other service, or give this one another socket (ublk serve --control)';
  return new UblkError(UblkErrorCode.Busy, `another service listens at ${path}`, { hint });
}

function refused(path: string, cause: unknown): UblkError {
  const hint = 'is the folder there, and may this user write to it?';
  const message = `cannot make the control socket ${path}: ${messageOf(cause)}`;
  return new UblkError(UblkErrorCode.InvalidArgument, message, { hint, cause });
}

/**
 * The id of a group, by name or number.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for a group that this machine does not have.
 */
export async function groupId(group: string): Promise<number> {
  if (/^\d+$/.test(group)) return Number(group);
  try {
    const { stdout } = await promisify(execFile)('getent', ['group', '--', group]);
    const [, , id = ''] = stdout.split(':');
    if (/^\d+$/.test(id)) return Number(id);
  } catch {
    // getent has no such group, or this machine has no getent.
  }
  throw invalid(`there is no group '${group}'`, 'give a group of this machine, or its number');
}
