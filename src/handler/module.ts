import { pathToFileURL } from 'node:url';

import { checkInteger, checkKeys } from '../check.ts';
import { invalid } from '../errors.ts';

/** Options of {@link handlerModule}. */
export interface HandlerModuleOptions {
  /**
   * The number of threads, 1 to 256. Each thread loads a separate copy of the module and serves separate
   * queues; a device has at least as many queues as workers.
   * @default 1
   */
  readonly workers?: number | undefined;
  /**
   * The argument for a default export that is a function: any value for `structuredClone()`. All threads
   * share the memory of a `SharedArrayBuffer`.
   */
  readonly data?: unknown;
}

/** A handler in a module for worker threads, made by {@link handlerModule}. */
export interface HandlerModule {
  readonly kind: 'module';
  /** The module's URL for `import()`. */
  readonly url: string;
  readonly workers: number;
  readonly data: unknown;
}

/**
 * A handler in worker threads, outside this program's event loop. The module's default export is the
 * handler, or a function that returns the handler for `data`.
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
 * @param module The module's URL, or an absolute path.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`. {@link createDevice} loads the module and reports its
 * errors.
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

/** Whether a target is a handler's module. */
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
