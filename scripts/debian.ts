// Debian's packages: those the machine must have are installed, those of other suites only unpacked.

import { createInterface } from 'node:readline/promises';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { fillOnce } from './cache.ts';
import { type SourceFile, retargetSources } from './debian-sources.ts';

/** The file that tells that a package is there, for those whose command has another name. */
const TELL_TALE: Record<string, string> = {
  binutils: 'readelf',
  'busybox-static': 'busybox',
  'btrfs-progs': 'mkfs.btrfs',
  'ceph-common': 'rbd',
  dosfstools: 'mkfs.vfat',
  e2fsprogs: 'mkfs.ext4',
  gcc: 'cc',
  kmod: 'modprobe',
  'libc6-dev': '/usr/include/stdio.h',
  'libnbd-bin': 'nbdinfo',
  'python3-libnbd': '/usr/lib/python3/dist-packages/nbd.py',
  'python3-venv': 'python3',
  'qemu-system-x86': 'qemu-system-x86_64',
  'qemu-utils': 'qemu-img',
  udev: 'udevadm',
  virtiofsd: '/usr/libexec/virtiofsd',
  xfsprogs: 'mkfs.xfs',
  'xz-utils': 'xz',
};

/** Where programs are looked for: a plain user's PATH often lacks the system folders. */
export const SYSTEM_PATH: string = [
  process.env.PATH ?? '/usr/local/bin:/usr/bin:/bin',
  '/usr/local/sbin:/usr/sbin:/sbin',
].join(':');

/** The full path of a program, or undefined. */
export function findProgram(name: string): string | undefined {
  if (name.startsWith('/')) return existsSync(name) ? name : undefined;
  return SYSTEM_PATH.split(':')
    .map((dir) => join(dir, name))
    .find((path) => existsSync(path));
}

/**
 * Installs those of the Debian packages `names` whose programs this machine lacks, saying so on
 * stderr; silent when none is missing. `why` completes "needed to …". A user who is not root is asked
 * first, at a terminal; then `sudo -n` does it. Rejects with the command to run by hand when it cannot,
 * or may not.
 */
export async function ensurePackages(names: readonly string[], why: string): Promise<void> {
  const missing = names.filter((name) => !findProgram(TELL_TALE[name] ?? name));
  if (missing.length === 0) return;
  const byHand = `apt-get install --no-install-recommends ${missing.join(' ')}`;
  if (!findProgram('apt-get')) {
    throw new Error(
      `Missing on this machine: ${missing.join(', ')}, needed to ${why}. ` +
        'These are names of Debian packages; there is no apt-get here, so install their like.',
    );
  }
  if (!(await mayInstall(missing, why))) {
    throw new Error(
      `Missing on this machine: ${missing.join(', ')}, needed to ${why}.\n` +
        `Run this as root, then try again:\n  ${byHand}`,
    );
  }
  console.error(`Installing ${missing.join(', ')} with apt-get, needed to ${why}…`);
  const install = ['install', '-y', '-qq', '--no-install-recommends', ...missing];
  const first = await aptGet(install);
  if (first.failed) await aptGet(['update', '-qq']); // a new machine has no lists, an old one stale
  const last = first.failed ? await aptGet(install) : first;
  const still = missing.filter((name) => !findProgram(TELL_TALE[name] ?? name));
  if (!last.failed && still.length === 0) return;
  throw new Error(
    `Could not install ${still.join(', ')}, needed to ${why}.\n${(last.stderr || last.shortMessage || '').trim()}\n` +
      `Run this as root, then try again:\n  apt-get update && ${byHand}`,
  );
}

/** Root has said so by being root; without a terminal there is nobody to ask. */
async function mayInstall(names: readonly string[], why: string): Promise<boolean> {
  const asks = process.stdin.isTTY && process.stderr.isTTY && process.getuid?.() !== 0;
  if (!asks) return true;
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const question = `Missing: ${names.join(', ')}, needed to ${why}. Install with sudo apt-get? [y/N] `;
    return /^y(es)?$/i.test((await terminal.question(question)).trim());
  } finally {
    terminal.close();
  }
}

function aptGet(args: string[]) {
  const command = ['apt-get', '-o', 'DPkg::Lock::Timeout=120', ...args];
  const asRoot = process.getuid?.() === 0 ? [] : ['sudo', '-n'];
  const [program = '', ...rest] = [...asRoot, 'env', 'DEBIAN_FRONTEND=noninteractive', ...command];
  return execa(program, rest, { reject: false, stdin: 'ignore' });
}

/**
 * Unpacks Debian packages of `suite` to the directory `dir` without installing them, and returns
 * `dir`. When `dir` exists nothing is done and the network is not used, so put what you asked for
 * into its name. Safe when several processes do it at once.
 */
export function downloadPackages(
  suite: string,
  names: readonly string[],
  dir: string,
): Promise<string> {
  return fillOnce(dir, async (draft) => {
    await using archive = await openSuite(suite);
    await archive.unpack(names, draft);
  });
}

/** What a suite says of one of its packages. */
export interface PackageRecord {
  version: string;
  /** Names only, of the packages it depends on. */
  depends: string[];
  /** Bytes to download. */
  size: number;
}

/** One suite of the machine's Debian archive, with package lists of its own. */
export interface Suite extends AsyncDisposable {
  name: string;
  /** The newest version of a package, or undefined when the suite has none. */
  show(name: string): Promise<PackageRecord | undefined>;
  /** All versions of a package, the newest first. */
  versions(name: string): Promise<string[]>;
  /** The names that match a regular expression. */
  search(pattern: string): Promise<string[]>;
  /** Downloads the packages, `name` or `name=version`, and unpacks all of them into one directory. */
  unpack(names: readonly string[], dir: string): Promise<void>;
}

/**
 * Fetches the package lists of a suite, into a directory of their own: neither the machine's lists
 * nor its installed packages are touched, and no root is needed.
 */
export async function openSuite(name: string): Promise<Suite> {
  const dir = await mkdtemp(join(tmpdir(), 'ublk-apt-'));
  const close = () => rm(dir, { recursive: true, force: true });
  try {
    const options = await aptOptions(dir, name);
    const run = (program: string, args: string[]) =>
      execa(program, [...options, ...args], { cwd: dir, stdin: 'ignore' });
    await run('apt-get', ['update', '-qq', '-o', 'APT::Update::Error-Mode=any']);
    return {
      name,
      async show(packageName) {
        const { stdout, exitCode } = await execa(
          'apt-cache',
          [...options, 'show', '--no-all-versions', packageName],
          { reject: false },
        );
        return exitCode === 0 ? parseRecord(stdout) : undefined;
      },
      async versions(packageName) {
        const { stdout } = await run('apt-cache', ['madison', packageName]);
        return stdout.split('\n').flatMap((line) => line.split('|')[1]?.trim() || []);
      },
      async search(pattern) {
        const { stdout } = await run('apt-cache', ['search', '--names-only', pattern]);
        return stdout.split('\n').flatMap((line) => line.split(' - ')[0] || []);
      },
      async unpack(names, target) {
        await run('apt-get', ['download', '-qq', ...names]);
        const files = (await readdir(dir)).filter((file) => file.endsWith('.deb'));
        for (const file of files) {
          await execa('dpkg', ['-x', join(dir, file), target]);
          await rm(join(dir, file));
        }
      },
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw new Error(
      `Could not read the package lists of Debian ${name}: ${shortMessage(error)}\n` +
        "They come from the archive that this machine's own apt sources name; " +
        'is it reachable (apt-get update), and does it have that suite?',
      { cause: error },
    );
  }
}

async function aptOptions(dir: string, suite: string): Promise<string[]> {
  const codename = await releaseCodename();
  const source = retargetSources(await readSources(), codename, suite);
  if (!source) {
    throw new Error(`no entry for ${codename} main in /etc/apt/sources.list or sources.list.d`);
  }
  const list = join(dir, `archive${source.extension}`);
  await writeFile(list, source.text);
  await mkdir(join(dir, 'lists/partial'), { recursive: true });
  await mkdir(join(dir, 'cache/archives/partial'), { recursive: true });
  return Object.entries({
    'Dir::Etc::sourcelist': list,
    'Dir::Etc::sourceparts': '-',
    'Dir::State::lists': join(dir, 'lists'),
    'Dir::State::status': '/dev/null', // else installed packages would show up as the suite's
    'Dir::Cache': join(dir, 'cache'),
    'Acquire::Languages': 'none',
    'APT::Sandbox::User': 'root', // apt's own user cannot write to our directory
  }).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
}

/** The name of this machine's Debian release. Rejects on another system. */
export async function releaseCodename(): Promise<string> {
  const text = await readFile('/etc/os-release', 'utf8').catch(() => '');
  const field = (name: string) => new RegExp(`^${name}="?([^"\\n]*)`, 'm').exec(text)?.[1] ?? '';
  if (field('ID') !== 'debian') {
    throw new Error(`this machine runs ${field('PRETTY_NAME') || 'an unknown system'}, not Debian`);
  }
  return field('VERSION_CODENAME') || 'sid';
}

async function readSources(): Promise<SourceFile[]> {
  const folder = '/etc/apt/sources.list.d';
  const names = await readdir(folder).catch(() => []);
  const paths = names.filter((name) => /\.(sources|list)$/.test(name)).map((n) => join(folder, n));
  return Promise.all(
    ['/etc/apt/sources.list', ...paths].map(async (path) => ({
      path,
      text: await readFile(path, 'utf8').catch(() => ''),
    })),
  );
}

function parseRecord(text: string): PackageRecord {
  const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(text)?.[1] ?? '';
  return {
    version: field('Version'),
    depends: field('Depends')
      .split(',')
      .flatMap((clause) => clause.trim().split(/[\s:(|]/)[0] || []),
    size: Number(field('Size')),
  };
}

function shortMessage(error: unknown): string {
  if (error instanceof Error && 'stderr' in error) return String(error.stderr).trim();
  return error instanceof Error ? error.message : String(error);
}
