// The configuration of a cluster of one monitor and one OSD, all on this machine.

import { join } from 'node:path';

/** Where the parts of a cluster are. */
export interface Layout {
  folder: string;
  /** Identifies the cluster. */
  fsid: string;
  /** Of the monitor, on the loopback. */
  port: number;
  /** The size of the OSD's disk, a sparse file, in bytes. */
  size: number;
}

/** The text of `ceph.conf`. */
export function settings({ folder, fsid, port, size }: Layout): string {
  const sections = { global: global(folder, fsid, port), mon: mon(folder), osd: osd(folder, size) };
  return Object.entries(sections).map(section).join('\n');
}

function section([name, keys]: [string, Keys]): string {
  const lines = Object.entries(keys).map(([key, value]) => `${key} = ${value}\n`);
  return `[${name}]\n${lines.join('')}`;
}

type Keys = Record<string, string | number>;

function global(folder: string, fsid: string, port: number): Keys {
  return {
    fsid,
    'mon host': `v2:127.0.0.1:${port}`,
    'mon initial members': 'a',
    'public network': '127.0.0.0/8',
    'ms bind msgr1': 'false',
    keyring: join(folder, 'keyring'),
    'run dir': folder,
    'osd pool default size': 1,
    'osd pool default min size': 1,
    'osd pool default pg num': 8,
    'osd pool default pg autoscale mode': 'off',
    'osd crush chooseleaf type': 0,
    // A restarted OSD waits until the leases of its former life have ended: 16 s by default.
    'osd heartbeat grace': 4,
    'osd heartbeat interval': 1,
  };
}

/** One copy of everything, and a disk of the host that may be nearly full. */
function mon(folder: string): Keys {
  return {
    'mon data': join(folder, 'mon'),
    'log file': join(folder, 'mon.log'),
    'pid file': join(folder, 'mon.pid'),
    'mon allow pool size one': 'true',
    'mon allow pool delete': 'true',
    'mon data avail warn': 1,
    'mon data avail crit': 1,
    'auth allow insecure global id reclaim': 'false',
  };
}

function osd(folder: string, size: number): Keys {
  return {
    'osd data': join(folder, 'osd'),
    'log file': join(folder, 'osd.log'),
    'pid file': join(folder, 'osd.pid'),
    'osd objectstore': 'bluestore',
    'bluestore block size': size,
    'bluestore block create': 'true',
    // The cache of a real OSD takes 4 GiB.
    'osd memory target': 1 << 30,
    'bluestore cache autotune': 'false',
    'bluestore cache size': 64 << 20,
  };
}
