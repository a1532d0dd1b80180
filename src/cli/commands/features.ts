import { features as ask } from '../../devices.ts';
import type { Feature } from '../../info.ts';
import { answer, paint, table, type OutputFlags } from '../output.ts';

/** `ublk features` */
export async function features(flags: OutputFlags): Promise<void> {
  const all = await ask();
  await answer(flags, all, () => table(all.map(row), ['', 'FEATURE', 'SINCE LINUX']));
}

function row({ name, since, supported }: Feature): string[] {
  return [supported ? paint('green', 'yes') : paint('dim', 'no'), name, since];
}
