import { randomUUID } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';

import type { Device } from './device.ts';
import type { DeviceInfo } from './info.ts';
import type { NativeTarget } from './native.ts';
import { formatSize } from './size.ts';
import { withoutQuery } from './targets/http.ts';
import { formatImage } from './targets/rbd.ts';

/**
 * A note of a server about a device during the service, for `ublk list` and `ublk info`: facts that the
 * kernel does not know. Notes lie in memory, in a folder of root or of the user, and no data depends on
 * a note.
 */
export interface ServerNote {
  /** The process of the server. */
  readonly pid: number;
  /** When the service of the device began, as ISO 8601. */
  readonly since: string;
  /** The target of the device, in words. */
  readonly serves: string;
  /** The name that the device was given. */
  readonly name?: string;
}

/** Writes a note for the time of the service, after a quiesce until the next server. */
export function noteServer(device: Device, target: NativeTarget, name?: string): void {
  // A device of tests is no device of this machine.
  if (!existsSync(`/sys/class/ublk-char/ublkc${device.id}`)) return;
  const folder = folderOf(process.getuid?.() ?? 0);
  const path = fileIn(folder, device.id);
  const since = new Date().toISOString();
  const serves = inWords(target);
  const note: ServerNote = { pid: process.pid, since, serves, ...(name !== undefined && { name }) };
  // Without a note, the device is served all the same.
  if (attempt(() => replace(folder, path, JSON.stringify(note))) === undefined) return;
  const remove = (): void => {
    if (parse(path)?.since === since) rmSync(path, { force: true });
  };
  device.closed.then(
    (reason) => {
      if (reason !== 'quiesced') attempt(remove);
    },
    () => attempt(remove),
  );
}

/** The note of the server of a device, or of the last server, if the device has no server now. */
export function readNote(
  info: DeviceInfo,
  folders: readonly string[] = foldersOf(info),
): ServerNote | undefined {
  const created = attempt(() => statSync(`/dev/ublkc${info.id}`).birthtimeMs) ?? 0;
  const notes = folders.flatMap((folder) => parse(fileIn(folder, info.id), info.ownerUid) ?? []);
  return notes.find(({ pid, since }) => {
    const isOfThisDevice = Date.parse(since) >= Math.floor(created);
    return isOfThisDevice && (info.serverPid === undefined || info.serverPid === pid);
  });
}

/** A target in words: paths, sizes, layers. */
export function inWords(target: NativeTarget): string {
  const below = (target.targets ?? []).map(inWords);
  switch (target.kind) {
    case 'file':
    case 'qcow2':
      return target.path ?? 'a file';
    case 'striped':
      return `stripes over ${below.join(', ')}`;
    case 'linear':
      return below.join(', then ');
    case 'delay':
      return `${below.join()}, late`;
    case 'handler':
      return below.length === 0 ? 'a handler' : `a handler over ${below.join(', ')}`;
    case 'overlay':
      return `${target.path ?? 'a layer'} on ${below.join()}`;
    case 'nbd':
      return target.nbd?.uri ?? 'an NBD server';
    case 'http':
      return target.http === undefined ? 'a file on a web server' : withoutQuery(target.http.url);
    case 'rbd':
      return target.rbd === undefined ? 'an image of Ceph RBD' : formatImage(target.rbd);
    case 'zoned':
      return `zones in ${target.path ?? 'memory'}`;
    default:
      return `${target.kind}:${formatSize(target.size ?? 0).replace(' ', '')}`;
  }
}

function foldersOf({ ownerUid }: DeviceInfo): readonly string[] {
  return [...new Set([folderOf(0), folderOf(ownerUid)])];
}

function folderOf(uid: number): string {
  return uid === 0 ? '/run/ublk-servers' : `/run/user/${uid}/ublk-servers`;
}

function fileIn(folder: string, id: number): string {
  return `${folder}/ublkb${id}.json`;
}

/** Puts a new file in the place of whatever is there; follows no link. */
function replace(folder: string, path: string, text: string): true {
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  const draft = `${path}.${randomUUID()}`;
  writeFileSync(draft, text, { flag: 'wx', mode: 0o644 });
  renameSync(draft, path);
  return true;
}

/** A note of root's or of `owner`. */
function parse(path: string, owner = process.getuid?.() ?? 0): ServerNote | undefined {
  return attempt(() => {
    const { uid } = statSync(path);
    if (uid !== 0 && uid !== owner) return undefined;
    const note = JSON.parse(readFileSync(path, 'utf8')) as Partial<ServerNote>;
    const { pid, since, serves, name } = note;
    const isNote =
      typeof pid === 'number' && typeof since === 'string' && typeof serves === 'string';
    return isNote ? { pid, since, serves, ...(typeof name === 'string' && { name }) } : undefined;
  });
}

function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}
