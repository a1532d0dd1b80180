import { getDeviceInfo } from '../../devices.ts';
import type { Counters } from '../../info.ts';
import { formatSize } from '../../size.ts';
import { describe, type DescribedDevice } from '../describe.ts';
import { answer, table, type OutputFlags } from '../output.ts';
import { inService } from '../served.ts';

/** `ublk info ID` */
export async function info(id: number, flags: OutputFlags): Promise<void> {
  const device = await describe(await getDeviceInfo(id));
  const served = await inService(id);
  const counters = (await served?.client.device(served.name))?.total;
  const service = served && { socket: served.client.path, name: served.name };
  const shown = { ...device, ...(service && { service }), ...(counters && { counters }) };
  await answer(flags, shown, () => table([...rows(device), ...ofService(service, counters)]));
}

function ofService(
  service: { readonly socket: string; readonly name: string } | undefined,
  counters: Counters | undefined,
): string[][] {
  if (service === undefined || counters === undefined) return [];
  const { reads, readBytes, writes, writeBytes, flushes } = counters;
  return [
    ['service', `'${service.name}' at ${service.socket}`],
    ['reads', `${reads} (${formatSize(readBytes)})`],
    ['writes', `${writes} (${formatSize(writeBytes)})`],
    ['flushes', String(flushes)],
  ];
}

function rows(device: DescribedDevice): string[][] {
  const { size, logicalBlockSize: block, serverPid: pid, serverName = 'unknown' } = device;
  return [
    ['path', device.path],
    ['name', device.name ?? '-'],
    ['state', device.state],
    ['size', size === undefined ? '-' : `${formatSize(size)} (${size} bytes)`],
    ['logical block', block === undefined ? '-' : `${block} bytes`],
    ['access', device.readOnly ? 'read-only' : 'read-write'],
    ['queues', String(device.queues)],
    ['depth', String(device.depth)],
    ['largest request', formatSize(device.maxIoBytes)],
    ['serves', device.serves ?? 'unknown'],
    ['served by', pid === undefined ? 'nobody' : `process ${pid} (${serverName})`],
    ['since', device.since ?? 'unknown'],
    ['used', device.users?.text ?? 'unknown'],
    ['created by', `user ${device.ownerUid}`],
    ['buffers', device.buffers],
    ['exchange', device.exchange],
    ['recovery', device.recovery ?? 'none: it ends with its server'],
    ['features', device.features.join(', ') || '-'],
  ];
}
