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
  /** In seconds. */
  readonly answerTimeout?: number;
  readonly tlsCertificates?: string;
}

/** `ublk add nbd URI` */
export async function addNbd(uri: string, flags: NbdFlags): Promise<void> {
  const target = targets.nbd(uri, {
    readOnly: flags.readOnly,
    logicalBlockSize: flags.blockSize,
    connectTimeoutMs: inMilliseconds(flags.connectTimeout),
    reconnectTimeoutMs: inMilliseconds(flags.reconnectTimeout),
    answerTimeoutMs: inMilliseconds(flags.answerTimeout),
    tlsCertificates: flags.tlsCertificates,
  });
  await serve(target, uri, flags);
}
