import { features as ask, getDeviceInfo } from '../../devices.ts';
import type { Feature } from '../../info.ts';
import { answer, paint, table, type OutputFlags } from '../output.ts';

/** `ublk features [ID]` */
export async function features(id: number | undefined, flags: OutputFlags): Promise<void> {
  const all = await ask();
  if (id === undefined) {
    const row = ({ name, since, supported }: Feature) => [yes(supported), name, since];
    await answer(flags, all, () => table(all.map(row), ['KERNEL', 'FEATURE', 'SINCE LINUX']));
    return;
  }
  const { path, features: names } = await getDeviceInfo(id);
  const given = all.map(({ name, since, supported }) => {
    return { name, since, supported, device: names.includes(name) };
  });
  const rows = given.map(({ name, since, supported, device }) => [
    yes(supported),
    yes(device),
    name,
    since,
  ]);
  await answer(flags, given, () => table(rows, ['KERNEL', path, 'FEATURE', 'SINCE LINUX']));
}

function yes(has: boolean): string {
  return has ? paint('green', 'yes') : paint('dim', 'no');
}
