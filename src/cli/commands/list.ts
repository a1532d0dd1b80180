import { listDevices } from '../../devices.ts';
import { formatSize } from '../../size.ts';
import { describe, type DescribedDevice } from '../describe.ts';
import { answer, table, type OutputFlags } from '../output.ts';

const HEAD = ['ID', 'PATH', 'STATE', 'SIZE', 'QUEUES', 'DEPTH', 'PID', 'SERVES', 'USED'];

/** `ublk list` */
export async function list(flags: OutputFlags): Promise<void> {
  const devices = await Promise.all((await listDevices()).map(describe));
  await answer(flags, devices, () =>
    devices.length === 0 ? 'no ublk devices' : table(devices.map(row), HEAD),
  );
}

function row(device: DescribedDevice): string[] {
  const { id, path, state, size, queues, depth, serverPid } = device;
  const shownSize = size === undefined ? '-' : formatSize(size);
  const { serves = 'unknown', users } = device;
  const shape = [id, path, state, shownSize, queues, depth, serverPid ?? '-'].map(String);
  return [...shape, serves, users?.text ?? 'unknown'];
}
