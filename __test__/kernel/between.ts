import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';

/** A socket between both servers of a hand-over, which stops at one of their messages. */
export interface Between extends AsyncDisposable {
  /**
   * Resolves when the message comes by, which then goes no further: a name of the protocol, `yours 2` for
   * the second one of its name.
   */
  reached(message: string): Promise<void>;
  /** Ends both connections. */
  cut(): void;
}

/** Listens at `path`, and passes on to the control socket `control`, and back. */
export async function standBetween(control: string, path: string): Promise<Between> {
  const sockets = new Set<Socket>();
  const seen = new Map<string, number>();
  let wanted = '';
  let isHeld = false;
  let tell: () => void = () => {};
  /** Whether the bytes go on: messages come one in a write, since each side waits for the other. */
  const isPassed = (bytes: Buffer): boolean => {
    for (const [, name = ''] of bytes.toString().matchAll(/"message":"([a-z]+)"/g)) {
      const count = (seen.get(name) ?? 0) + 1;
      seen.set(name, count);
      if (wanted === (count === 1 ? name : `${name} ${count}`)) isHeld = true;
    }
    if (isHeld) tell();
    return !isHeld;
  };
  const join = (from: Socket, to: Socket): void => {
    sockets.add(from);
    from.on('error', () => {});
    from.on('data', (bytes) => isPassed(bytes) && to.write(bytes));
    from.on('close', () => to.destroy());
  };
  const server = createServer((near) => {
    const far = connect(control);
    join(near, far);
    join(far, near);
  });
  server.listen(path);
  await once(server, 'listening');
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    reached: (message) => {
      wanted = message;
      return new Promise((resolve) => (tell = resolve));
    },
    cut,
    [Symbol.asyncDispose]: async () => {
      cut();
      server.close();
      await once(server, 'close');
    },
  };
}
