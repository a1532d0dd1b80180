import { inMilliseconds } from '../arguments.ts';
import { targets } from '../../targets/index.ts';
import { parseImage } from '../../targets/rbd.ts';
import { serve, type AddFlags } from './add.ts';

/** The flags of `ublk add rbd`. */
export interface RbdFlags extends AddFlags {
  /** The Ceph user. */
  readonly user?: string;
  readonly cluster?: string;
  readonly conf?: string;
  readonly keyring?: string;
  readonly lock: boolean;
  readonly readOnly?: true;
  readonly blockSize?: number;
  /** In seconds. */
  readonly connectTimeout?: number;
  /** In seconds. */
  readonly requestTimeout?: number;
}

/** `ublk add rbd IMAGE` */
export async function addRbd(text: string, flags: RbdFlags): Promise<void> {
  const { image, ...place } = parseImage(text);
  const { user, cluster, conf, keyring, lock, readOnly, blockSize: logicalBlockSize } = flags;
  const target = targets.rbd(image, {
    ...place,
    user,
    cluster,
    conf,
    keyring,
    lock,
    readOnly,
    logicalBlockSize,
    connectTimeoutMs: inMilliseconds(flags.connectTimeout),
    requestTimeoutMs: inMilliseconds(flags.requestTimeout),
  });
  await serve(target, `rbd:${text}`, flags);
}
