import { checkAbsolutePath } from '../../check.ts';
import { answer, type OutputFlags } from '../output.ts';
import { wishFor } from '../sharing.ts';

/** The flags of `ublk share`. */
export interface ShareFlags extends OutputFlags {
  readonly readOnly?: true;
}

/** `ublk share ID FILE` */
export async function share(id: number, file: string, flags: ShareFlags): Promise<void> {
  const readOnly = flags.readOnly === true;
  const index = await wishFor(id, { share: checkAbsolutePath(file, 'file'), readOnly });
  await answer(flags, { id, index }, () => `device ${id} shares ${file} as ${index}`);
}

/** `ublk unshare ID INDEX` */
export async function unshare(id: number, index: number, flags: OutputFlags): Promise<void> {
  await wishFor(id, { unshare: index });
  await answer(flags, { id, index }, () => `device ${id} shares ${index} no more`);
}
