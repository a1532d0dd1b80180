import type { ServiceClient } from '../control/client.ts';
import { serviceOf } from '../control/locate.ts';
import type { ServedDevice } from '../control/protocol.ts';
import { listDevices } from '../devices.ts';
import { readDiskStats } from '../disk-stat.ts';
import { readNote } from '../notes.ts';
import type { MetricSource } from './families.ts';

/** How long a service may take to name its counters, in milliseconds: Prometheus waits for 10 s. */
const PATIENCE_MS = 3000;

/** What {@link machineSources} asks. */
export interface Machine {
  readonly list: typeof listDevices;
  /** The devices of the service in a process; rejects when the service does not answer in time. */
  readonly ask: (pid: number) => Promise<readonly ServedDevice[]>;
  readonly read: typeof readDiskStats;
}

const THIS: Machine = { list: listDevices, ask: askService, read: readDiskStats };

/**
 * All devices of this machine. The services of this user, or of all users for root, tell the counters of
 * their devices; of all devices the kernel tells its own.
 *
 * @throws {UblkError} The errors of {@link listDevices}.
 */
export async function machineSources({ list, ask, read }: Machine = THIS): Promise<MetricSource[]> {
  const infos = await list();
  const pids = new Set(infos.flatMap(({ serverPid }) => serverPid ?? []));
  const answers = await Promise.all([...pids].map((pid) => ask(pid).catch(() => [])));
  const diskOf = read();
  const served = new Map(answers.flat().map((device) => [device.id, device]));
  return infos.map((info) => {
    // Another server may have a device of this number by now.
    const answer = served.get(info.id);
    const device = answer?.serverPid === info.serverPid ? answer : undefined;
    const name = device?.name ?? readNote(info)?.name;
    const { total: counters, stalled, latencies } = device ?? {};
    return { info, name, counters, stalled, latencies, disk: diskOf(info.id) };
  });
}

async function askService(pid: number): Promise<readonly ServedDevice[]> {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const client: ServiceClient | undefined = await serviceOf(pid, signal);
  return (await client?.devices({ signal })) ?? [];
}
