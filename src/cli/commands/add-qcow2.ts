import { targets } from '../../targets/index.ts';
import { serve, type AddFlags } from './add.ts';

/** The flags of `ublk add qcow2`. */
export interface Qcow2Flags extends AddFlags {
  readonly direct?: boolean;
  readonly lock: boolean;
  readonly blockSize?: number;
}

/** `ublk add qcow2 IMAGE` */
export async function addQcow2(image: string, flags: Qcow2Flags): Promise<void> {
  const { direct, lock, blockSize: logicalBlockSize } = flags;
  await serve(targets.qcow2(image, { direct, lock, logicalBlockSize }), image, flags);
}
