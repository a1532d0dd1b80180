/**
 * Aborts at the first SIGINT, SIGTERM or SIGHUP. A second one ends the process at once; what is
 * open is still closed then, but not waited for long.
 */
export function untilSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(1);
      controller.abort();
    });
  }
  return controller.signal;
}
