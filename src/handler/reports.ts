import { UblkError, UblkErrorCode } from '../errors.ts';
import type { NativeReport } from '../native.ts';
import { OPS } from '../request-op.ts';

/** The reasons for a refused plan, by the addon's names. */
const MISFITS: Readonly<Record<string, string>> = {
  count: 'it has no pieces, or too many',
  backend: 'a piece names no backend',
  'beyond-request': 'a piece lies beyond the end of the request',
  'beyond-backend': 'a piece lies beyond the end of its backend',
  alignment: "a piece is empty, or no multiple of its backend's block size",
  gap: 'some bytes of the request are in no piece',
  overlap: 'some bytes of the read are in several pieces',
  op: 'its backend, or the request, cannot do what a piece asks for',
  direction: "a step reads into a write's data, or writes a read's data to a backend",
};

/** A report of the bridge as an error. */
export function toWarning(report: NativeReport, timeoutMs: number): UblkError {
  const { kind, queue, op, offset, length, ms } = report;
  const name = OPS[op] ?? 'read';
  const request = { op: name, offset, length, queue };
  switch (kind) {
    case 'timed-out':
      return new UblkError(
        UblkErrorCode.RequestTimeout,
        `the handler did not answer a ${name} within ${timeoutMs} ms; it failed with ETIMEDOUT`,
        { request, hint: 'settle every promise, or raise timeoutMs' },
      );
    case 'late':
      return new UblkError(
        UblkErrorCode.LateAnswer,
        'a request was answered after it had timed out',
        { request },
      );
    case 'blocked':
      return new UblkError(
        UblkErrorCode.Blocked,
        `requests of queue ${queue} wait for an event loop that does not turn`,
        { hint: 'move long computations and synchronous I/O elsewhere' },
      );
    case 'unblocked':
      return new UblkError(
        UblkErrorCode.Blocked,
        `the event loop was blocked: requests of queue ${queue} waited for about ${ms} ms`,
        { hint: 'move long computations and synchronous I/O elsewhere' },
      );
    default:
      return new UblkError(
        UblkErrorCode.BadPlan,
        `the pieces of a ${name} do not fit: ${MISFITS[kind] ?? kind}; it failed`,
        { request },
      );
  }
}
