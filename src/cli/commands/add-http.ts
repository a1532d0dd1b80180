import { inMilliseconds } from '../arguments.ts';
import { targets } from '../../targets/index.ts';
import { withoutQuery } from '../../targets/http.ts';
import { serve, type AddFlags } from './add.ts';

/** The flags of `ublk add http`. */
export interface HttpFlags extends AddFlags {
  /** Requests at a time. */
  readonly parallel?: number;
  /** A file with certificates. */
  readonly authorities?: string;
  readonly blockSize?: number;
  /** In seconds. */
  readonly answerTimeout?: number;
  /** In seconds. */
  readonly retryTimeout?: number;
}

/** `ublk add http URL` */
export async function addHttp(url: string, flags: HttpFlags): Promise<void> {
  const { parallel: connections, authorities, blockSize: logicalBlockSize } = flags;
  const target = targets.http(url, {
    connections,
    authorities,
    logicalBlockSize,
    answerTimeoutMs: inMilliseconds(flags.answerTimeout),
    retryTimeoutMs: inMilliseconds(flags.retryTimeout),
  });
  await serve(target, withoutQuery(url), flags);
}
