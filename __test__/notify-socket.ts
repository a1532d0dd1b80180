import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** Node.js has no datagram sockets of Unix: Perl hears them, and prints a line of hex for each. */
const HEAR = `use Socket; socket(S, AF_UNIX, SOCK_DGRAM, 0) or die $!; $| = 1;
my $name = $ARGV[0]; $name =~ s/^@/\\0/; bind(S, pack_sockaddr_un($name)) or die $!; print "\\n";
while (defined recv(S, my $text, 4096, 0)) { print unpack("H*", $text), "\\n" }`;

/** A service manager that listens at a socket of its own until it is disposed of. */
export interface NotifySocket extends Disposable {
  /** The next message. */
  heard(): Promise<string>;
}

/** Listens at `address` as a service manager does: a path, or `@` and an abstract name. */
export async function notifySocket(address: string): Promise<NotifySocket> {
  const perl = spawn('perl', ['-e', HEAR, address], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: perl.stdout })[Symbol.asyncIterator]();
  await lines.next();
  return {
    heard: async () => Buffer.from((await lines.next()).value as string, 'hex').toString(),
    [Symbol.dispose]: () => void perl.kill(),
  };
}
