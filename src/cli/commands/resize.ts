import { resizeDevice } from '../../devices.ts';
import { formatSize } from '../../size.ts';
import { answer, type OutputFlags } from '../output.ts';

/** The flags of `ublk resize`. */
export interface ResizeFlags extends OutputFlags {
  readonly force?: true;
}

/** `ublk resize ID SIZE` */
export async function resize(id: number, size: string, flags: ResizeFlags): Promise<void> {
  const device = await resizeDevice(id, size, { force: flags.force });
  const bytes = device.size ?? 0;
  await answer(flags, { id, size: bytes }, () => `${device.path} has ${formatSize(bytes)} now`);
}
