import { UblkError, UblkErrorCode } from '../errors.ts';
import { loadService } from '../service/load.ts';
import type { Service, ServiceResult } from '../service/service.ts';
import { ignoredSignals } from './ignored.ts';

/** The reloads of a service: at SIGHUP, and when a client asks. */
export interface Reloads extends AsyncDisposable {
  /**
   * Reads the configuration again and applies it.
   *
   * @throws {UblkError} The error of a wrong configuration, which changes nothing;
   * `ERR_UBLK_CLOSED` once the service ends.
   */
  reload(): Promise<readonly ServiceResult[]>;
}

/** What is said of a reload: its steps, or the error of its configuration. */
export interface ReloadReport {
  done(results: readonly ServiceResult[]): void;
  failed(error: UblkError): void;
  /** The configuration has been read; the address for scrapes may be another. */
  listen(metrics: string | undefined): Promise<void>;
  /** A reload begins. */
  reloading(): void;
  /** The reload has ended, well or not, and has been reported. */
  ready(): void;
}

/**
 * Reads the configuration at `path` again when asked, and at SIGHUP until disposed of, unless the starter
 * of this process ignores SIGHUP.
 */
export function reloads(
  service: Service,
  path: string,
  ended: AbortSignal,
  report: ReloadReport,
): Reloads {
  let last: Promise<unknown> = Promise.resolve();
  const attempt = async (): Promise<readonly ServiceResult[]> => {
    if (ended.aborted) throw new UblkError(UblkErrorCode.Closed, 'the service is about to end');
    report.reloading();
    try {
      const { devices, metrics } = await loadService(path);
      await report.listen(metrics);
      const results = await service.apply(devices, ended);
      report.done(results);
      return results;
    } catch (error) {
      if (UblkError.is(error)) report.failed(error);
      throw error;
    } finally {
      report.ready();
    }
  };
  const reload = (): Promise<readonly ServiceResult[]> => {
    const done = last.then(attempt);
    last = done.catch(() => {});
    return done;
  };
  const hear = (): void => {
    reload().catch((error: unknown) => {
      if (!UblkError.is(error)) throw error;
    });
  };
  if (!ignoredSignals().includes('SIGHUP')) process.on('SIGHUP', hear);
  return {
    reload,
    [Symbol.asyncDispose]: async () => {
      process.off('SIGHUP', hear);
      await last;
    },
  };
}
