import { setDeviceAffinity } from '../../devices.ts';
import { answer, type OutputFlags } from '../output.ts';

/** `ublk set-affinity ID CPUS` */
export async function setAffinity(id: number, cpus: number[], flags: OutputFlags): Promise<void> {
  const threads = await setDeviceAffinity(id, cpus);
  const said = `${threads} thread${threads === 1 ? '' : 's'} of device ${id}`;
  await answer(flags, { id, cpus, threads }, () => `moved ${said} to CPU ${cpus.join(', ')}`);
}
