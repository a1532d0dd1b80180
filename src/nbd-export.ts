import { checkAbsolutePath, checkBoolean, checkInteger, checkKeys } from './check.ts';
import { hasEnded } from './create.ts';
import { Device } from './device.ts';
import { unwrap, wrong } from './errors.ts';
import type { HandlerModule } from './handler/module.ts';
import { serve, serverOf } from './handler/serve.ts';
import type { Handler } from './handler/types.ts';
import { native, type NativeDevice, type NativeEnd, type NativeExport } from './native.ts';
import { toNativeOptions, type DeviceOptions } from './options.ts';
import type { Target } from './targets/index.ts';
import { watchDevice } from './serving.ts';

/** The port of NBD. */
const PORT = 10809;
/** The protocol's limit of a name, in bytes. */
const MAX_STRING = 4096;
const MAX_CONNECTIONS = 128;

/** Where the clients of {@link exportNbd} connect to. */
export interface NbdAddress {
  /** The path of a Unix socket; not with `host` and `port`. The socket of a dead server is replaced. */
  readonly socket?: string | URL | undefined;
  /**
   * A name or an address of this machine. Without {@link ExportNbdOptions.tls}, there is no authentication
   * and no encryption: whoever reaches the port reads and writes the disk.
   * @default '127.0.0.1'
   */
  readonly host?: string | undefined;
  /**
   * The TCP port, 0 to 65535; with 0, a free one (see {@link NbdExport.uri}).
   * @default 10809
   */
  readonly port?: number | undefined;
}

/** TLS of an export. */
export interface ExportTls {
  /**
   * The folder with the certificates, with the names of libnbd and nbdkit: `ca-cert.pem`, `server-cert.pem` and
   * `server-key.pem`. The files are read once.
   */
  readonly certificates: string | URL;
  /**
   * Whether each client needs a certificate that the authority in `ca-cert.pem` has signed. With false, whoever
   * reaches the port reads and writes the disk.
   * @default true
   */
  readonly verifyClients?: boolean | undefined;
}

/** Options of {@link exportNbd}; those shared with {@link DeviceOptions} mean the same. */
export interface ExportNbdOptions extends Pick<
  DeviceOptions,
  | 'queues'
  | 'depth'
  | 'maxIoBytes'
  | 'affinity'
  | 'spinUsec'
  | 'timeoutMs'
  | 'throttle'
  | 'latencies'
  | 'watchdog'
  | 'merge'
> {
  /**
   * The name of the export, at most 4096 bytes. Clients may leave the name out.
   * @default ''
   */
  readonly name?: string | undefined;
  /**
   * A description for people, which `nbdinfo` shows, at most 4096 bytes.
   * @default ''
   */
  readonly description?: string | undefined;
  /**
   * Whether writes are refused.
   * @default as the target says
   */
  readonly readOnly?: boolean | undefined;
  /**
   * The most connections at once, 1 to 128 and at most `depth`, so that each has a request at least; a client
   * over the limit is refused. Clients use several.
   * @default 16
   */
  readonly connections?: number | undefined;
  /**
   * Clients must use TLS 1.3, which the kernel carries; with a TCP address only.
   * @default none
   */
  readonly tls?: ExportTls | undefined;
  /**
   * Cancels the creation: the promise rejects with the reason of the signal, and nothing is left.
   * @default none
   */
  readonly signal?: AbortSignal | undefined;
}

const SHARED_KEYS = [
  'queues',
  'depth',
  'maxIoBytes',
  'affinity',
  'spinUsec',
  'timeoutMs',
  'throttle',
  'latencies',
  'watchdog',
  'merge',
] as const;
const OWN_KEYS = ['name', 'description', 'readOnly', 'connections', 'tls', 'signal'];
const KEYS = [...OWN_KEYS, ...SHARED_KEYS];

/**
 * A target that clients of NBD use, made by {@link exportNbd}. All of a {@link Device} that is about requests
 * is there: events, counters, completions, throttling, snapshots and forks of overlays. There is no block
 * device: {@link path} is the URI, {@link id} is a number of this process, and nothing outlives the process.
 */
export class NbdExport extends Device {
  readonly #readOnly: boolean;

  /** @internal */
  constructor(
    native: NativeDevice,
    ended: Promise<NativeEnd>,
    { uri, readOnly }: { readonly uri: string; readonly readOnly: boolean },
  ) {
    super(native, ended, uri);
    this.#readOnly = readOnly;
  }

  /**
   * Where clients find the export: `nbd://127.0.0.1:10809/NAME`, `nbds://…` with TLS, or
   * `nbd+unix:///NAME?socket=PATH`.
   */
  get uri(): string {
    return this.path;
  }

  override get readOnly(): boolean {
    return this.#readOnly || super.readOnly;
  }
}

/**
 * Serves a target or a handler to clients of NBD (qemu, nbdkit, libnbd, `nbd-client`, and clients of other
 * systems), without ublk, without a block device and without root. Needs io_uring.
 *
 * All connections reach the same disk, and a flush of one covers the finished writes of all. When the export
 * closes, requests under way end first, and clients have 2 s to take the replies.
 *
 * @example
 * await using exported = await exportNbd(targets.file('disk.img'), { socket: '/run/disk.sock' });
 * console.log(exported.uri); // nbd+unix:///?socket=/run/disk.sock
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`, also for an address that this machine does not have, and for
 * a path with a file that is no socket, or certificates that cannot be used; `ERR_UBLK_BUSY` for an address or a file that another server has;
 * `ERR_UBLK_UNSUPPORTED` for zoned targets, for targets with metadata, and for TLS where the kernel has none; `ERR_UBLK_NO_IO_URING`,
 * `ERR_UBLK_PERMISSION`, `ERR_UBLK_NO_BACKEND`, `ERR_UBLK_BAD_BACKEND`, `ERR_UBLK_UNSUPPORTED_PLATFORM`,
 * `ERR_UBLK_NO_ADDON`.
 */
export async function exportNbd(
  // oxlint-disable-next-line typescript/no-explicit-any -- whatever its backends are called
  target: Target | Handler<any> | HandlerModule,
  address: NbdAddress,
  options: ExportNbdOptions = {},
): Promise<NbdExport> {
  const exported = toNativeExport(address, options);
  const { signal } = options;
  signal?.throwIfAborted();
  const shared = Object.entries(options).filter(([key]) => !OWN_KEYS.includes(key));
  const rest = Object.fromEntries(shared) as Pick<ExportNbdOptions, (typeof SHARED_KEYS)[number]>;
  // Threads stay where the scheduler puts them: no queue of the kernel belongs to a CPU.
  const request = { ...toNativeOptions({ ...rest, target }), pin: false };
  let onEnd!: (end: NativeEnd) => void;
  const ended = new Promise<NativeEnd>((resolve) => (onEnd = resolve));
  const server = await serverOf(target, request);
  const create = async (): Promise<NativeDevice> =>
    unwrap(await native().createExport(server?.request ?? request, exported, onEnd));
  const made = await serve(server, ended, create, (device) => {
    const uri = toUri(exported, device.address() ?? '');
    return new NbdExport(device, ended, { uri, readOnly: exported.readOnly });
  });
  if (signal?.aborted && (await hasEnded(made.close()))) throw signal.reason;
  made.named(exported.name || undefined);
  watchDevice(made, options);
  return made;
}

function toNativeExport(address: NbdAddress, options: ExportNbdOptions): NativeExport {
  checkKeys(address, 'the address of exportNbd()', ['socket', 'host', 'port']);
  checkKeys(options, 'the options of exportNbd()', KEYS);
  const { name = '', description = '', readOnly = false, connections = 16, tls } = options;
  const facts = {
    name: checkString(name, 'name'),
    description: checkString(description, 'description'),
    readOnly: checkBoolean(readOnly, 'readOnly'),
    connections: checkInteger(connections, 'connections', 1, MAX_CONNECTIONS),
    ...toNativeTls(tls),
  };
  const { socket, host, port } = address;
  if (socket !== undefined) {
    if (tls !== undefined) {
      const hint =
        'the kernel has TLS for TCP only; the permissions of the socket decide who connects';
      throw wrong('tls', 'and socket exclude each other', hint);
    }
    const other = host === undefined ? port !== undefined && 'port' : 'host';
    if (other) throw wrong('socket', `and ${other} exclude each other`, 'leave one of them out');
    return { socket: checkAbsolutePath(socket, 'socket'), ...facts };
  }
  return {
    host: host === undefined ? '127.0.0.1' : checkHost(host),
    port: port === undefined ? PORT : checkInteger(port, 'port', 0, 65535),
    ...facts,
  };
}

function toNativeTls(
  tls: ExportTls | undefined,
): Pick<NativeExport, 'tlsCertificates' | 'tlsAnyone'> {
  if (tls === undefined) return { tlsAnyone: false };
  checkKeys(tls, 'tls', ['certificates', 'verifyClients']);
  const { certificates, verifyClients = true } = tls;
  return {
    tlsCertificates: checkAbsolutePath(certificates, 'tls.certificates'),
    tlsAnyone: !checkBoolean(verifyClients, 'tls.verifyClients'),
  };
}

function checkString(value: unknown, name: string): string {
  if (typeof value !== 'string') throw wrong(name, 'is no string');
  const length = Buffer.byteLength(value);
  if (length <= MAX_STRING) return value;
  throw wrong(name, `has ${length} bytes; the protocol has room for ${MAX_STRING}`);
}

function checkHost(host: unknown): string {
  if (typeof host === 'string' && host !== '') return host;
  throw wrong('host', 'is no name and no address of this machine');
}

/** The URI of the project NetworkBlockDevice, which qemu and libnbd know. */
function toUri({ socket, name, tlsCertificates }: NativeExport, address: string): string {
  const path = encodeURIComponent(name);
  const scheme = tlsCertificates === undefined ? 'nbd' : 'nbds';
  if (socket === undefined) return `${scheme}://${address}/${path}`;
  return `nbd+unix:///${path}?socket=${encodeURI(socket).replaceAll(/[?#&]/g, encodeURIComponent)}`;
}
