import { resizeDevice } from '../../devices.ts';
import { formatSize } from '../../size.ts';
import { answer, type OutputFlags } from '../output.ts';
import { inService } from '../served.ts';

/** The flags of `ublk resize`. */
export interface ResizeFlags extends OutputFlags {
  readonly force?: true;
}

/** `ublk resize ID SIZE` */
export async function resize(id: number, size: string, flags: ResizeFlags): Promise<void> {
  // A service checks its backing store; of another server, only --force lets a device grow.
  const served = flags.force ? undefined : await inService(id);
  const device = served
    ? await served.client.resize(served.name, size)
    : await resizeDevice(id, size, { force: flags.force });
  const bytes = device.size ?? 0;
  await answer(flags, { id, size: bytes }, () => `${device.path} has ${formatSize(bytes)} now`);
}
