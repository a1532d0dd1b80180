import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

import { afterAll, beforeAll } from 'vitest';

import { CEPH_PACKAGES, CephCluster } from '../scripts/ceph/cluster.ts';
import type { RbdTargetOptions } from '../src/index.ts';

const PROGRAMS = ['ceph', 'rbd', 'ceph-mon', 'ceph-osd', 'ceph-authtool', 'monmaptool'];

/** Why there can be no cluster here; undefined where there can. */
export const noCeph: string | undefined = findObstacle();

function findObstacle(): string | undefined {
  const folders = (process.env.PATH ?? '').split(delimiter);
  const lacks = (name: string) => !folders.some((folder) => existsSync(join(folder, name)));
  const missing = PROGRAMS.filter(lacks);
  if (missing.length === 0) return undefined;
  return `no ${missing.join(', ')}: apt-get install ${CEPH_PACKAGES.join(' ')}`;
}

/** How long a cluster may take to come up, in an emulated machine. */
const UP_MS = 600_000;

/** A cluster for the tests of a `describe`. */
export interface TestCluster {
  readonly cluster: CephCluster;
  /** The options of targets on this cluster. */
  readonly options: RbdTargetOptions;
  /** Runs `rbd`. */
  rbd(...args: string[]): Promise<string>;
  /** Makes an image, and returns its name. */
  image(size: string, ...args: string[]): Promise<string>;
}

/** Starts a cluster before the tests of a `describe`, and removes the cluster after them. */
export function clusterOfTests(): TestCluster {
  let made: CephCluster | undefined;
  beforeAll(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'ublk-ceph-'));
    made = await CephCluster.create(folder, 2 ** 31);
  }, UP_MS);
  afterAll(async () => await made?.remove());
  const cluster = (): CephCluster => {
    if (made) return made;
    throw new Error('the cluster is not up');
  };
  const rbd = async (...args: string[]) => await cluster().run('rbd', ...args);
  const image = async (size: string, ...args: string[]): Promise<string> => {
    const name = `disk-${randomUUID()}`;
    await rbd('create', name, '--size', size, ...args);
    return name;
  };
  return {
    get cluster() {
      return cluster();
    },
    get options() {
      return { conf: cluster().conf };
    },
    rbd,
    image,
  };
}
