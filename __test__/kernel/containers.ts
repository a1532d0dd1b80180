// A container image of this package, made as the example's Dockerfile says, and podman in the test machine.

import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';
import { parseAllDocuments } from 'yaml';

const PACKAGE = fileURLToPath(new URL('../../', import.meta.url));
const EXAMPLE = join(PACKAGE, 'examples/containers');

/** The name that the example gives to its image. */
export const IMAGE = 'ublk-server';

/** The machine has neither systemd, for the groups of processes, nor a disk for a driver of layers. */
const GLOBAL = ['--cgroup-manager=cgroupfs', '--storage-driver=vfs', '--events-backend=none'];

export function podman(...args: string[]) {
  return execa('podman', [...GLOBAL, ...args], { reject: false });
}

const dockerfile = (): string => readFileSync(join(EXAMPLE, 'Dockerfile'), 'utf8');

/** The arguments of `docker run` that the Dockerfile recommends, without the image. */
export function recommended(): string[] {
  const lines = dockerfile()
    .split('\n')
    .filter((line) => line.startsWith('#'));
  const text = lines.map((line) => line.slice(1).replace(/\\$/, '')).join(' ');
  const words = /docker run (.*)/.exec(text)![1]!.trim().split(/\s+/);
  return words.slice(0, words.lastIndexOf(IMAGE));
}

/**
 * The container of the manifest as Kubernetes starts it on each node: the arguments of `podman run`, and the
 * command that asks whether the container is ready. Files of ConfigMaps are written to `folder`.
 */
export function ofManifest(folder: string): { args: string[]; probe: string[] } {
  const text = readFileSync(join(EXAMPLE, 'daemonset.yml'), 'utf8');
  const [config, set] = parseAllDocuments(text).map((document) => document.toJS() as unknown) as [
    { data: Record<string, string> },
    { spec: { template: { spec: PodSpec } } },
  ];
  for (const [name, file] of Object.entries(config.data)) writeFileSync(join(folder, name), file);
  const pod = set.spec.template.spec;
  const [container] = pod.containers;
  const sources = new Map(
    pod.volumes.map(({ name, hostPath }) => [name, hostPath?.path ?? folder]),
  );
  const args = container.volumeMounts.flatMap(({ name, mountPath, readOnly }) => {
    return ['--volume', `${sources.get(name)}:${mountPath}:${readOnly ? 'ro' : 'rw'}`];
  });
  args.push('--stop-timeout', String(pod.terminationGracePeriodSeconds));
  if (pod.hostPID) args.push('--pid=host');
  if (container.securityContext.privileged) args.push('--privileged');
  return { args, probe: container.readinessProbe.exec.command };
}

interface PodSpec {
  hostPID?: boolean;
  terminationGracePeriodSeconds: number;
  volumes: { name: string; hostPath?: { path: string } }[];
  containers: [
    {
      securityContext: { privileged?: boolean };
      volumeMounts: { name: string; mountPath: string; readOnly?: boolean }[];
      readinessProbe: { exec: { command: string[] } };
    },
  ];
}

/**
 * Imports what the Dockerfile's image has that a server needs: Node.js with its libraries, a shell, and
 * the package as `npm install --global` puts it down; STOPSIGNAL and ENTRYPOINT are the Dockerfile's own.
 */
export async function importImage(folder: string): Promise<void> {
  const modules = '/usr/lib/node_modules';
  const programs = [process.execPath, '/bin/sh', '/usr/bin/env', '/usr/bin/readlink'];
  const { stdout: listed } = await execa('npm', ['ls', '--omit=dev', '--parseable', '--all'], {
    cwd: PACKAGE,
    reject: false,
  });
  // A folder comes with the packages inside.
  const needed = listed.match(/^.*\/node_modules\/(?:@[^/]+\/)?[^/]+$/gm)!.filter((path) => {
    return path.split('/node_modules/').length === 2;
  });
  const files = [
    ...programs,
    ...(await librariesOf(...programs, join(PACKAGE, 'native/ublk.linux-x64-gnu.node'))),
    ...['bin', 'dist', 'native', 'package.json'].map((name) => join(PACKAGE, name)),
    ...needed,
  ];
  const moved = `s,^${PACKAGE.slice(1, -1)},${modules.slice(1)}/ublk,`;
  const changes = ['STOPSIGNAL', 'ENTRYPOINT'].map((key) => {
    return `--change=${new RegExp(`^${key} .*`, 'm').exec(dockerfile())![0]}`;
  });
  const path = `--change=ENV PATH=${dirname(process.execPath)}:${modules}/ublk/bin:/usr/bin:/bin`;
  const tar = join(folder, 'image.tar');
  await execa('tar', [
    '-C',
    '/',
    '-chf',
    tar,
    `--transform=${moved}`,
    ...files.map((f) => f.slice(1)),
  ]);
  await execa('podman', [...GLOBAL, 'import', ...changes, path, tar, IMAGE]);
}

async function librariesOf(...programs: string[]): Promise<string[]> {
  const { stdout } = await execa('ldd', programs);
  const paths = stdout.match(/(?<=\s)\/[^\s:]+(?= \(0x)/g) ?? [];
  return [...new Set(paths)];
}
