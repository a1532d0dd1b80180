import { stopDevice } from '../../devices.ts';
import { answer, type OutputFlags } from '../output.ts';

/** `ublk stop ID` */
export async function stop(id: number, flags: OutputFlags): Promise<void> {
  await stopDevice(id);
  await answer(flags, { id, stopped: true }, () => `stopped device ${id}`);
}
