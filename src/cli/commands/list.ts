import { listDevices } from '../../devices.ts';
import { listOrphans, type Orphans, type OrphanRecord } from '../../orphans.ts';
import { formatSize } from '../../size.ts';
import { describe, type DescribedDevice } from '../describe.ts';
import { answer, table, type OutputFlags } from '../output.ts';

const HEAD = ['ID', 'PATH', 'NAME', 'STATE', 'SIZE', 'QUEUES', 'DEPTH', 'PID', 'SERVES', 'USED'];

/** A record without a device, as `ublk list --json` shows it among the devices. */
interface GoneDevice {
  readonly id: number;
  readonly path: string;
  readonly name?: string;
  readonly state: 'gone';
  readonly record: string;
  readonly problem?: string;
}

/** `ublk list`: the devices, then what is wrong with those that have no server, and with records. */
export async function list(flags: OutputFlags): Promise<void> {
  const devices = await Promise.all((await listDevices()).map(describe));
  const orphans = await listOrphans();
  const gone = orphans.records.map(goneDevice);
  await answer(flags, [...devices, ...gone], async () => {
    const shown = devices.length === 0 ? 'no ublk devices' : await table(devices.map(row), HEAD);
    return [shown, ...remarks(orphans)].join('\n');
  });
}

function row(device: DescribedDevice): string[] {
  const { id, path, name, state, size, queues, depth, serverPid } = device;
  const shownSize = size === undefined ? '-' : formatSize(size);
  const { serves = 'unknown', users } = device;
  const shape = [name ?? '-', state, shownSize, queues, depth, serverPid ?? '-'];
  return [id, path, ...shape, serves, users?.text ?? 'unknown'].map(String);
}

function remarks({ devices, records }: Orphans): string[] {
  return [
    ...devices.map(({ id, path, recovery, state }) => {
      const canRecover = recovery !== undefined && state !== 'dead';
      const next = canRecover ? `ublk recover ${id}` : `ublk delete ${id}`;
      return `${path} has no server: ${next}`;
    }),
    ...records.map(({ path, problem }) => {
      return problem
        ? problem.message
        : `${path} is the record of a device that is gone: ublk prune`;
    }),
  ];
}

function goneDevice({ id, path, name, problem }: OrphanRecord): GoneDevice {
  return {
    id,
    path: `/dev/ublkb${id}`,
    ...(name !== undefined && { name }),
    state: 'gone',
    record: path,
    ...(problem && { problem: problem.message }),
  };
}
