import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';

import { debug } from './debug.ts';

/** The name of the file with the rules that make `/dev/ublk/by-name`. */
export const NAMES_RULES = '96-ublk-names.rules';

/** Where the names lie for udev, one file per disk, in memory; for root alone to write. */
const FOLDER = '/run/ublk-names';
/** Where udev finds rules. */
const RULES = ['/etc/udev/rules.d', '/run/udev/rules.d', '/usr/lib/udev/rules.d'];

/** Where {@link nameDisk} reads and writes; other places in tests only. */
export interface NamePlaces {
  readonly folder: string;
  readonly rules: readonly string[];
  readonly block: string;
  readonly uid: number | undefined;
}

/**
 * Lets udev make the link `/dev/ublk/by-name/NAME` to a disk that root serves, where the rules for it
 * are installed. The name lies in a file that is named after the disk's sequence number, which no other
 * disk of this boot has: a rule never finds the name of an earlier disk with the same number. The
 * number exists as soon as the disk does, so the server asks udev to look once more. A disk without a
 * link is served all the same.
 */
export function nameDisk(id: number, name: string | undefined, places?: Partial<NamePlaces>): void {
  const {
    folder = FOLDER,
    rules = RULES,
    block = '/sys/block',
    uid = process.getuid?.(),
  } = places ?? {};
  if (name === undefined || uid !== 0) return;
  if (!rules.some((one) => existsSync(`${one}/${NAMES_RULES}`))) return;
  const disk = `${block}/ublkb${id}`;
  try {
    // Linux 5.15 and later.
    const sequence = readFileSync(`${disk}/diskseq`, 'utf8').trim();
    mkdirSync(folder, { recursive: true, mode: 0o755 });
    const draft = `${folder}/.${sequence}.${process.pid}`;
    // Of a killed process with the same number, or a link, which the draft must not follow.
    rmSync(draft, { force: true });
    writeFileSync(draft, `UBLK_NAME=${name}\n`, { mode: 0o644, flag: 'wx' });
    renameSync(draft, `${folder}/${sequence}`);
    const partitions = readdirSync(disk).filter((one) => one.startsWith(`ublkb${id}p`));
    for (const part of ['', ...partitions]) writeFileSync(`${disk}/${part}/uevent`, 'change');
  } catch (error) {
    debug('ublkb%d: no link of the name %s: %O', id, name, error);
  }
}
