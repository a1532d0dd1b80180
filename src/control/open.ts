import { checkKeys } from '../check.ts';
import type { ServiceConfig } from '../service/config.ts';
import type { Service } from '../service/service.ts';

/** Options of {@link openControl}. */
export interface ControlOptions {
  /**
   * The path of the socket, absolute.
   * @default '/run/ublk-service.sock'; '/run/user/UID/ublk-service.sock' for a user who is not root
   */
  readonly path?: string | undefined;
  /**
   * A group whose members may control the service, by name or number.
   * @default only the user of this process (and root)
   */
  readonly group?: string | undefined;
  /** The configuration for a reload that a client asks for; absent: clients cannot reload. */
  readonly reload?: (() => Promise<ServiceConfig> | ServiceConfig) | undefined;
}

/** The control socket of a service, made by {@link openControl}. */
export interface ControlSocket extends AsyncDisposable {
  readonly path: string;
  /** Ends the event streams, waits up to a second for the answers under way, and removes the socket. */
  close(): Promise<void>;
}

/**
 * Lets other processes list, resize, stop, reload and take over the devices of a service through a Unix socket:
 * HTTP with JSON, for {@link connectService}, `ublk service` and `curl --unix-socket`. Many requests run
 * at once. The socket of a dead service is replaced. The socket does not keep the program alive.
 *
 * Who may connect may stop devices; the mode of the socket is 0600, or 0660 with a `group`.
 *
 * @example
 * const service = await serve(config);
 * await using control = await openControl(service, { group: 'disk' });
 *
 * @throws {UblkError} `ERR_UBLK_BUSY` where a living service listens; `ERR_UBLK_INVALID_ARGUMENT`.
 */
export async function openControl(
  service: Service,
  options: ControlOptions = {},
): Promise<ControlSocket> {
  checkKeys(options, 'the options of openControl()', ['path', 'group', 'reload']);
  const { listen } = await import('./server.ts');
  const { reload } = options;
  if (reload === undefined) return await listen({ service, since: now() }, options);
  return await listen(
    {
      service,
      since: now(),
      reload: async () => await service.reload(await reload()),
      plan: async () => await service.plan(await reload()),
    },
    options,
  );
}

function now(): string {
  return new Date().toISOString();
}
