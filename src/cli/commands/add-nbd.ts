import { targets } from '../../targets/index.ts';
import { inMilliseconds } from '../arguments.ts';
import { serve, type AddFlags } from './add.ts';

/** The flags of `ublk add nbd`. */
export interface NbdFlags extends AddFlags {
  readonly readOnly?: true;
  readonly blockSize?: number;
  /** In seconds. */
  readonly connectTimeout?: number;
  /** In seconds. */
  readonly reconnectTimeout?: number;
}

/** `ublk add nbd URI` */
export async function addNbd(uri: string, flags: NbdFlags): Promise<void> {
  const { readOnly, blockSize: logicalBlockSize, connectTimeout, reconnectTimeout } = flags;
  const target = targets.nbd(uri, {
    readOnly,
    logicalBlockSize,
    connectTimeoutMs: inMilliseconds(connectTimeout),
    reconnectTimeoutMs: inMilliseconds(reconnectTimeout),
  });
  await serve(target, uri, flags);
}
