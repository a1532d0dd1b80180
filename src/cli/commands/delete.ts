import { deleteDevice } from '../../devices.ts';
import { answer, type OutputFlags } from '../output.ts';

/** `ublk delete ID` */
export async function remove(id: number, flags: OutputFlags): Promise<void> {
  await deleteDevice(id);
  await answer(flags, { id, deleted: true }, () => `deleted device ${id}`);
}
