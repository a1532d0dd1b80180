import { request, type IncomingMessage } from 'node:http';
import { json } from 'node:stream/consumers';

import { ServiceClient } from '../control/client.ts';
import { HAND_OVER, HAND_OVER_PATH, Wire, type MessageOf } from '../control/wire.ts';
import { toError, UblkError, UblkErrorCode, type Failure } from '../errors.ts';

/** A connection to a service that is to hand its devices over, and the first message of the service. */
export interface Greeted {
  readonly wire: Wire;
  readonly hello: MessageOf<'hello'>;
}

/**
 * Connects to the service at a control socket for a hand-over.
 *
 * @throws {UblkError} `ERR_UBLK_NO_SERVICE`, `ERR_UBLK_PERMISSION`; `ERR_UBLK_UNSUPPORTED` for a service of
 * a version without this hand-over.
 */
export async function greet(path: string): Promise<Greeted> {
  const { version } = await new ServiceClient(path).info();
  const wire = await openWire(path, version);
  const hello = await wire.next();
  if (hello.message === 'hello') return { wire, hello };
  wire.end();
  throw new UblkError(UblkErrorCode.NoService, `the service at ${path} has ended`);
}

async function openWire(path: string, version: string): Promise<Wire> {
  const answer = await new Promise<Wire | IncomingMessage>((resolve, reject) => {
    request({
      socketPath: path,
      path: HAND_OVER_PATH,
      agent: false,
      headers: { connection: 'Upgrade', upgrade: HAND_OVER },
    })
      .once('upgrade', (_response, socket, head) => resolve(new Wire(socket, head)))
      .once('response', resolve)
      .once('error', reject)
      .end();
  }).catch((cause: unknown) => {
    throw new UblkError(UblkErrorCode.NoService, `the service at ${path} has ended`, { cause });
  });
  if (answer instanceof Wire) return answer;
  const { error } = Object(await json(answer).catch(() => {})) as { readonly error?: Failure };
  throw new UblkError(
    UblkErrorCode.Unsupported,
    `the service at ${path} (ublk ${version}) hands no devices over in the way of this version`,
    {
      hint: 'stop the service and start the new one: devices with recovery wait meanwhile',
      ...(error && { cause: toError(error) }),
    },
  );
}
