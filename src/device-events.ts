import type { UblkError } from './errors.ts';
import type { Stalled } from './watchdog.ts';

/**
 * The end of a device: by {@link Device.close}, stopped by another program, or left to the next server,
 * in this process or another, and waiting for {@link recoverDevice}.
 */
export type EndReason = 'closed' | 'stopped' | 'quiesced';

/** The events of a {@link Device}. */
export interface DeviceEvents {
  /** The service has ended, and the device is gone unless quiesced. The last event. */
  close: [];
  /** The device failed and is being removed; `close` follows. */
  error: [error: UblkError];
  /**
   * A request failed in JavaScript, and the service continues: a handler threw (`ERR_UBLK_HANDLER`),
   * did not answer in time (`ERR_UBLK_REQUEST_TIMEOUT`), answered an ended request
   * (`ERR_UBLK_LATE_ANSWER`), and others. Or the device has not ended 3 s after {@link Device.close} or
   * {@link Device.quiesce} (`ERR_UBLK_BUSY`, with the users of the device). Without a listener, and after
   * `close`, Node.js prints the first warning of each code.
   */
  warning: [warning: UblkError];
  /**
   * A request does not end, or a thread of the server does not answer; only with the option `watchdog`, and
   * once for each request. Without a listener, Node.js prints the message.
   */
  stalled: [stalled: Stalled];
}
