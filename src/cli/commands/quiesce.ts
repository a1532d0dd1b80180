import { quiesceDevice } from '../../devices.ts';
import { answer, type OutputFlags } from '../output.ts';

/** `ublk quiesce ID` */
export async function quiesce(id: number, flags: OutputFlags): Promise<void> {
  await quiesceDevice(id);
  const next = `ublk recover ${id} gives it another server`;
  await answer(flags, { id, quiesced: true }, () => `quiesced device ${id}; ${next}`);
}
