import { pathToFileURL } from 'node:url';

import { checkInteger, checkKeys } from '../check.ts';
import { invalid } from '../errors.ts';

/** What {@link handlerModule} can be asked for. */
export interface HandlerModuleOptions {
  /**
   * Threads, 1 to 256. Each has a module of its own, with its own variables, and the requests of
   * its own queues; a device has at least as many queues as workers.
   * @default 1
   */
  readonly workers?: number | undefined;
  /**
   * What the module's default export is called with if it is a function: anything that
   * `structuredClone()` takes. A `SharedArrayBuffer` is the same memory in all of them.
   */
  readonly data?: unknown;
}

/** A handler in a module, answered for in worker threads; made by {@link handlerModule}. */
export interface HandlerModule {
  readonly kind: 'module';
  /** The module, as import() takes it. */
  readonly url: string;
  readonly workers: number;
  readonly data: unknown;
}

/**
 * A handler that runs in worker threads, apart from this program's event loop, on as many cores as
 * you like. The module's default export is the handler, or a function that makes it of `data`.
 *
 * @example
 * // disk.js: export default (shared) => ({ size: shared.byteLength, read(request) { … } });
 * await using device = await createDevice({
 *   target: handlerModule(new URL('./disk.js', import.meta.url), {
 *     workers: 2,
 *     data: new SharedArrayBuffer(64 << 20),
 *   }),
 * });
 *
 * @param module Its URL, or an absolute path.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`. Whether the module is there, and what it holds,
 * is seen by {@link createDevice}.
 */
export function handlerModule(
  module: URL | string,
  options: HandlerModuleOptions = {},
): HandlerModule {
  checkKeys(options, 'handlerModule()', ['workers', 'data']);
  const { workers = 1, data } = options;
  return Object.freeze({
    kind: 'module',
    url: toUrl(module),
    workers: checkInteger(workers, 'workers', 1, 256),
    data,
  });
}

/** Whether something that should be a target is a handler's module. */
export function isHandlerModule(target: unknown): target is HandlerModule {
  return (target as Partial<HandlerModule> | null | undefined)?.kind === 'module';
}

function toUrl(module: unknown): string {
  if (module instanceof URL) return module.href;
  if (typeof module === 'string') {
    if (module.startsWith('/')) return pathToFileURL(module).href;
    if (URL.canParse(module)) return module;
  }
  throw invalid(
    `the module is ${String(module)}; it must be a URL or an absolute path`,
    "write new URL('./disk.js', import.meta.url)",
  );
}
