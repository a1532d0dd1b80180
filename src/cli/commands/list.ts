import { listDevices } from '../../devices.ts';
import type { DeviceInfo } from '../../info.ts';
import { formatSize } from '../../size.ts';
import { answer, table, type OutputFlags } from '../output.ts';

const HEAD = ['ID', 'PATH', 'STATE', 'SIZE', 'QUEUES', 'DEPTH', 'PID'];

/** `ublk list` */
export async function list(flags: OutputFlags): Promise<void> {
  const devices = await listDevices();
  await answer(flags, devices, () =>
    devices.length === 0 ? 'no ublk devices' : table(devices.map(row), HEAD),
  );
}

function row(device: DeviceInfo): string[] {
  const { id, path, state, size, queues, depth, serverPid } = device;
  const shownSize = size === undefined ? '-' : formatSize(size);
  return [id, path, state, shownSize, queues, depth, serverPid ?? '-'].map(String);
}
