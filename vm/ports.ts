// The host's ends of the guest's serial ports: Unix sockets that QEMU connects to.

import { once } from 'node:events';
import { type Socket, createServer } from 'node:net';
import { PassThrough } from 'node:stream';

/** A socket to hand to QEMU, and what the guest writes to it. */
export interface Port {
  path: string;
  output: PassThrough;
  close(): void;
}

export async function listen(path: string): Promise<Port> {
  const output = new PassThrough();
  let socket: Socket | undefined;
  const server = createServer((connection) => {
    socket = connection;
    connection.on('error', () => output.end());
    connection.pipe(output);
    server.close(); // QEMU connects once
  });
  server.listen(path);
  await once(server, 'listening');
  return {
    path,
    output,
    close() {
      if (socket) return; // what is still in flight ends the output
      server.close();
      output.end();
    },
  };
}
