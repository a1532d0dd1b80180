import { resizeDevice } from '../../devices.ts';
import { formatSize } from '../../size.ts';
import { answer, type OutputFlags } from '../output.ts';

/** `ublk resize ID SIZE` */
export async function resize(id: number, size: string, flags: OutputFlags): Promise<void> {
  const device = await resizeDevice(id, size);
  const bytes = device.size ?? 0;
  await answer(flags, { id, size: bytes }, () => `${device.path} has ${formatSize(bytes)} now`);
}
