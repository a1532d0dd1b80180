// A container image of this package, made as the example's Dockerfile says, and podman in the test machine.

import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';

import { execa } from 'execa';
import { parseAllDocuments } from 'yaml';

import { modules } from '../../src/cli/installed.ts';

const PACKAGE = resolve(import.meta.dirname, '../..');
/** Where `npm install --global` puts the package. */
const INSTALLED = '/usr/lib/node_modules/ublk';
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
  const programs = [process.execPath, '/bin/sh', '/usr/bin/readlink'];
  const libraries = await librariesOf(...programs, join(PACKAGE, 'native/ublk.linux-x64-gnu.node'));
  const files = [...programs, ...libraries, join(PACKAGE, 'bin'), ...modules(PACKAGE)];
  const tar = join(folder, 'image.tar');
  const place = `--transform=s,^${PACKAGE.slice(1)},${INSTALLED.slice(1)},`;
  // Absolute names would get a warning each.
  await execa('tar', ['-C', '/', '-chf', tar, place, ...files.map((file) => file.slice(1))]);
  const kept = dockerfile().match(/^(?:STOPSIGNAL|ENTRYPOINT) .*/gm)!;
  const path = `ENV PATH=${dirname(process.execPath)}:${INSTALLED}/bin:/usr/bin:/bin`;
  const changes = [...kept, path].map((line) => `--change=${line}`);
  await execa('podman', [...GLOBAL, 'import', ...changes, tar, IMAGE]);
}

async function librariesOf(...programs: string[]): Promise<string[]> {
  const { stdout } = await execa('ldd', programs);
  const paths = stdout.match(/(?<=\s)\/[^\s:]+(?= \(0x)/g) ?? [];
  return [...new Set(paths)];
}
