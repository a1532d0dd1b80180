// `npm run ceph -- up`: a Ceph cluster for trying RBD, on this machine, in one command.
//
//   npm run ceph -- up [FOLDER]      makes a cluster with an image of 1 GiB; takes 20 s
//   npm run ceph -- stop [FOLDER]    ends the daemons; the folder stays
//   npm run ceph -- start [FOLDER]   starts the daemons again
//   npm run ceph -- down [FOLDER]    ends the daemons and removes the folder

import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { CEPH_PACKAGES, CephCluster } from './ceph/cluster.ts';
import { ensurePackages } from './debian.ts';

const IMAGE = 'disk';

async function up(folder: string): Promise<void> {
  if (existsSync(resolve(folder, 'ceph.conf'))) {
    throw new Error(`${folder} has a cluster already: npm run ceph -- start ${folder}`);
  }
  await ensurePackages(CEPH_PACKAGES, 'run a Ceph cluster');
  const cluster = await CephCluster.create(folder);
  const { conf } = cluster;
  await cluster.run('rbd', 'create', IMAGE, '--size', '1G');
  console.log(`A Ceph cluster runs in ${folder}, with the image rbd/${IMAGE}:

  ublk add rbd ${IMAGE} --conf ${conf}
  rbd -c ${conf} info ${IMAGE}
  npm run ceph -- down ${folder}`);
}

async function start(folder: string): Promise<void> {
  const cluster = new CephCluster(folder);
  await cluster.startMon();
  await cluster.startOsd();
}

const COMMANDS: Record<string, (folder: string) => Promise<void>> = {
  up,
  start,
  stop: (folder) => new CephCluster(folder).stop(),
  down: (folder) => new CephCluster(folder).remove(),
};

const [name = '', folder = '.cache/ceph'] = process.argv.slice(2);
const command = COMMANDS[name];
if (command === undefined) {
  console.error(`usage: npm run ceph -- ${Object.keys(COMMANDS).join('|')} [FOLDER]`);
  process.exit(2);
}
try {
  await command(resolve(folder));
} catch (error) {
  console.error(`error: ${error instanceof Error ? error.message : String(error)}`);
  process.exit(1);
}
