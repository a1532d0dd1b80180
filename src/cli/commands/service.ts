import { resolve } from 'node:path';

import { connectService, type ServiceClient } from '../../control/client.ts';
import type { ServedDevice, ServiceInfo } from '../../control/protocol.ts';
import type { ServiceResult } from '../../service/service.ts';
import { formatSize } from '../../size.ts';
import { parseThrottle, throttleText } from '../../throttle.ts';
import { answer, table, type OutputFlags } from '../output.ts';
import { withProgress } from '../progress.ts';
import { ExitStatus, report } from '../report.ts';

/** The flags of each `ublk service …`. */
export interface ServiceFlags extends OutputFlags {
  readonly socket?: string;
}

/** The flags of `ublk service stop`. */
export interface ServiceStopFlags extends ServiceFlags {
  readonly force?: true;
}

/** The flags of `ublk service snapshot` and `ublk service fork`. */
export interface ServiceSnapshotFlags extends ServiceFlags {
  readonly path?: string;
}

/** The flags of `ublk service flatten`. */
export interface ServiceFlattenFlags extends ServiceFlags {
  readonly prune?: true;
  readonly bytesPerSecond?: string;
}

function connect({ socket }: ServiceFlags): Promise<ServiceClient> {
  return connectService(socket === undefined ? undefined : resolve(socket));
}

const HEAD = ['NAME', 'PATH', 'STATE', 'SIZE', 'READ', 'WRITTEN'];

/** `ublk service status` */
export async function status(flags: ServiceFlags): Promise<void> {
  const client = await connect(flags);
  const [service, devices] = await Promise.all([client.info(), client.devices()]);
  await answer(flags, { ...service, devices }, async () => {
    const shown = devices.length === 0 ? 'no devices' : await table(devices.map(row), HEAD);
    return [inWords(service, client.path), shown, ...failures(service.results)].join('\n');
  });
}

function inWords({ pid, version, since, config, ready }: ServiceInfo, socket: string): string {
  const what = config === undefined ? 'a program' : config;
  const state = ready ? '' : ', not ready yet';
  return `process ${pid} serves ${what} since ${since} (ublk ${version}, ${socket}${state})`;
}

function row({ name, path, state, size, total }: ServedDevice): string[] {
  const { readBytes, writeBytes } = total;
  const shown = size === undefined ? '-' : formatSize(size);
  return [name, path, state, shown, formatSize(readBytes), formatSize(writeBytes)];
}

function failures(results: readonly ServiceResult[]): string[] {
  return results.flatMap(({ name, error }) => (error ? [`${name} failed: ${error.message}`] : []));
}

/** `ublk service reload` */
export async function reload(flags: ServiceFlags & { readonly dryRun?: true }): Promise<void> {
  const client = await connect(flags);
  const results: readonly ServiceResult[] = flags.dryRun
    ? await client.plan()
    : await client.reload();
  await answer(flags, results, async () => {
    const rows = results.map(({ name, action, why, remains }) => {
      return [name, action, [why, ...remains].join('; ')];
    });
    return rows.length === 0 ? 'no devices' : await table(rows, ['DEVICE', 'ACTION', 'WHY']);
  });
  for (const { error } of results) {
    if (error === undefined) continue;
    if (!flags.json) report(error, false);
    process.exitCode = ExitStatus.Failed;
  }
}

/** `ublk service events`: until the service ends. */
export async function events(flags: ServiceFlags): Promise<void> {
  const client = await connect(flags);
  for await (const event of client.events()) process.stdout.write(`${JSON.stringify(event)}\n`);
}

/** `ublk service stop NAME` */
export async function stop(name: string, flags: ServiceStopFlags): Promise<void> {
  const client = await connect(flags);
  const { id, checked } = await client.stop(name, { force: flags.force });
  await answer(flags, { id, stopped: true, checked }, () => `stopped ${name} (device ${id})`);
}

/** `ublk service resize NAME SIZE` */
export async function resize(name: string, wanted: string, flags: ServiceFlags): Promise<void> {
  const client = await connect(flags);
  const { id, path, size = 0 } = await client.resize(name, wanted);
  await answer(flags, { id, size }, () => `${name} (${path}) has ${formatSize(size)} now`);
}

/** `ublk service throttle NAME [LIMIT…]` */
export async function throttle(
  name: string,
  words: readonly string[],
  flags: ServiceFlags,
): Promise<void> {
  const limits = parseThrottle(words);
  const client = await connect(flags);
  const { id } = await client.throttle(name, limits);
  const said = words.length === 0 ? 'no limits' : `the limits ${throttleText(limits)}`;
  await answer(flags, { id, throttle: limits }, () => `${name} (device ${id}) has ${said} now`);
}

/** `ublk service snapshot NAME` and `ublk service fork NAME CHILD…` */
export async function snapshot(
  name: string,
  children: readonly string[],
  flags: ServiceSnapshotFlags,
): Promise<void> {
  const client = await connect(flags);
  const options = flags.path === undefined ? {} : { path: resolve(flags.path) };
  const files = children.map((child) => resolve(child));
  const taken =
    files.length === 0
      ? await client.snapshot(name, options)
      : await client.fork(name, files, options);
  const { path, generation } = taken;
  const shown = `${name} is frozen as ${path} (generation ${generation}), and goes on`;
  await answer(flags, { ...taken, children: files }, () => [shown, ...files].join('\n'));
}

/** `ublk service flatten NAME` */
export async function flatten(name: string, flags: ServiceFlattenFlags): Promise<void> {
  const client = await connect(flags);
  const { prune, bytesPerSecond } = flags;
  const merged = await withProgress('the merge', (options) =>
    client.flatten(name, { prune, bytesPerSecond, ...options }),
  );
  const { kept, removed } = merged;
  const count = kept.length + removed.length;
  const lines = [
    count === 0
      ? `nothing is to be merged below ${name}`
      : `merged ${count + 1} layers below ${name}`,
    ...removed.map((layer) => `removed ${layer}`),
    ...kept.map((layer) => `kept ${layer}, which ${name} no longer needs`),
  ];
  await answer(flags, merged, () => lines.join('\n'));
}

/** `ublk service quiesce NAME` */
export async function quiesce(name: string, flags: ServiceFlags): Promise<void> {
  const client = await connect(flags);
  const { id } = await client.quiesce(name);
  await answer(
    flags,
    { id, quiesced: true },
    () => `${name} (device ${id}) waits for its next server`,
  );
}
