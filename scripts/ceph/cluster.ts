// A Ceph cluster for trying RBD: one monitor, one OSD on a sparse file, one copy of each object. No manager,
// so no statistics; no data survives the loss of the folder.

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { settings } from './settings.ts';

/** The Debian packages of a cluster and its tools. */
export const CEPH_PACKAGES = ['ceph-mon', 'ceph-osd', 'ceph-common'];

/** How long a program of Ceph's may take: an emulated machine is thirty times slower. */
const LIMIT_MS = 240_000;
const DEFAULT_SIZE = 2 ** 32;
const OSD = '0';

type Daemon = 'mon' | 'osd';

/** A cluster in a folder, whose daemons run until `stop`. */
export class CephCluster {
  readonly folder: string;
  /** The path of `ceph.conf`. */
  readonly conf: string;
  /** The keys of client.admin and of the daemons. */
  readonly keyring: string;

  /** The cluster of a folder, whether or not it runs. */
  constructor(folder: string) {
    this.folder = folder;
    this.conf = join(folder, 'ceph.conf');
    this.keyring = join(folder, 'keyring');
  }

  /** Makes a cluster in an empty or missing folder, with the pool `rbd`. Takes 15 s. */
  static async create(folder: string, size = DEFAULT_SIZE): Promise<CephCluster> {
    const cluster = new CephCluster(folder);
    try {
      await cluster.#make(size);
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  async #make(size: number): Promise<void> {
    const { folder, keyring } = this;
    const [fsid, port, uuid] = [randomUUID(), await freePort(), randomUUID()];
    await mkdir(join(folder, 'osd'), { recursive: true });
    await writeFile(this.conf, settings({ folder, fsid, port, size }), { flag: 'wx' });
    await this.#makeKeys();
    const monmap = join(folder, 'monmap');
    const address = `[v2:127.0.0.1:${port}]`;
    await run('monmaptool', ['--create', '--addv', 'a', address, '--fsid', fsid, monmap]);
    await this.run('ceph-mon', '--mkfs', '-i', 'a', '--monmap', monmap, '--keyring', keyring);
    await this.startMon();
    await this.run('ceph', 'osd', 'new', uuid);
    await this.run('ceph-osd', '-i', OSD, '--mkfs', '--osd-uuid', uuid);
    await this.startOsd();
    await this.run('ceph', 'osd', 'pool', 'create', 'rbd');
    await this.run('rbd', 'pool', 'init', 'rbd');
  }

  async #makeKeys(): Promise<void> {
    const all = (...services: string[]) => services.flatMap((name) => ['--cap', name, 'allow *']);
    const osd = [...all('osd'), '--cap', 'mon', 'allow profile osd'];
    const keys = { 'mon.': all('mon'), 'client.admin': all('mon', 'osd', 'mgr'), 'osd.0': osd };
    await writeFile(this.keyring, '', { mode: 0o600 });
    for (const [name, caps] of Object.entries(keys)) {
      await run('ceph-authtool', [this.keyring, '--gen-key', '-n', name, ...caps]);
    }
  }

  /** Runs a program of Ceph's on this cluster, and returns its output. */
  async run(program: string, ...args: string[]): Promise<string> {
    return await run(program, ['-c', this.conf, ...args]);
  }

  async startMon(): Promise<void> {
    await this.#start('mon', 'a');
  }

  async startOsd(): Promise<void> {
    await this.#start('osd', OSD);
  }

  async #start(name: Daemon, id: string): Promise<void> {
    try {
      await this.run(`ceph-${name}`, '-i', id);
    } catch (cause) {
      const log = await readFile(join(this.folder, `${name}.log`), 'utf8').catch(() => '');
      throw new Error(`ceph-${name} does not start: ${log.trim().split('\n').at(-1)}`, { cause });
    }
  }

  /** Kills the OSD, without a chance to end what it does. */
  async killOsd(): Promise<void> {
    await this.#end('osd', 'SIGKILL');
  }

  async killMon(): Promise<void> {
    await this.#end('mon', 'SIGKILL');
  }

  /** Ends the daemons. The folder stays. */
  async stop(): Promise<void> {
    await this.#end('osd', 'SIGTERM');
    await this.#end('mon', 'SIGTERM');
  }

  /** Ends the daemons, and removes the folder with all images. */
  async remove(): Promise<void> {
    await this.killOsd();
    await this.killMon();
    await rm(this.folder, { recursive: true, force: true });
  }

  async #end(name: Daemon, signal: NodeJS.Signals): Promise<void> {
    const file = join(this.folder, `${name}.pid`);
    const pid = Number(await readFile(file, 'utf8').catch(() => ''));
    // The number may be another process's by now.
    if (pid === 0 || !(await commandOf(pid)).includes(this.conf)) return;
    process.kill(pid, signal);
    // A process loses its command line first, and its locks last.
    while (await hasThreads(pid)) await sleep(50);
  }
}

async function run(program: string, args: readonly string[]): Promise<string> {
  // Daemons keep the descriptors that they inherit: their output goes to their logs.
  const isDaemon = /^ceph-(mon|osd)$/.test(program) && !args.includes('--mkfs');
  const output = isDaemon ? ('ignore' as const) : ('pipe' as const);
  const stdio = { stdin: 'ignore', stdout: output, stderr: output } as const;
  const { stdout } = await execa(program, args, { ...stdio, timeout: LIMIT_MS });
  return stdout ?? '';
}

/** The command line of a process; nothing of a process that has ended. */
async function commandOf(pid: number): Promise<string> {
  return await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
}

/**
 * Whether a thread of a process still runs. Each of them holds the files of the process, and their locks. The
 * first thread is a zombie as soon as it has ended itself, before the others.
 */
async function hasThreads(pid: number): Promise<boolean> {
  const tasks = `/proc/${pid}/task`;
  for (const thread of await readdir(tasks).catch(() => [])) {
    const stat = await readFile(join(tasks, thread, 'stat'), 'utf8').catch(() => '');
    if (/\) [^ZX]/.test(stat)) return true;
  }
  return false;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
