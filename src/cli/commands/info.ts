import { getDeviceInfo } from '../../devices.ts';
import type { DeviceInfo } from '../../info.ts';
import { formatSize } from '../../size.ts';
import { answer, table, type OutputFlags } from '../output.ts';

/** `ublk info ID` */
export async function info(id: number, flags: OutputFlags): Promise<void> {
  const device = await getDeviceInfo(id);
  await answer(flags, device, () => table(rows(device)));
}

function rows(device: DeviceInfo): string[][] {
  const { size, logicalBlockSize: block } = device;
  return [
    ['path', device.path],
    ['state', device.state],
    ['size', size === undefined ? '-' : `${formatSize(size)} (${size} bytes)`],
    ['logical block', block === undefined ? '-' : `${block} bytes`],
    ['access', device.readOnly ? 'read-only' : 'read-write'],
    ['queues', String(device.queues)],
    ['depth', String(device.depth)],
    ['largest request', formatSize(device.maxIoBytes)],
    ['served by', device.serverPid === undefined ? 'nobody' : `process ${device.serverPid}`],
    ['created by', `user ${device.ownerUid}`],
    ['recovery', device.recovery ?? 'none: it ends with its server'],
    ['features', device.features.join(', ') || '-'],
  ];
}
