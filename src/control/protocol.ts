import type { DeviceLatencies } from '../latencies.ts';
import type { UblkError } from '../errors.ts';
import type { Buffering, Counters, DeviceInfo } from '../info.ts';
import type { ServiceResult } from '../service/service.ts';
import type { Stall } from '../service/stalls.ts';
import type { Stalled } from '../watchdog.ts';

/** The control socket of a service of root, by default; the folder `/run/ublk` is closed to groups. */
const OF_ROOT = '/run/ublk-service.sock';

/** The control socket of this user's service, by default. */
export function defaultSocket(): string {
  const uid = process.getuid?.() ?? 0;
  return uid === 0 ? OF_ROOT : `/run/user/${uid}/ublk-service.sock`;
}

/** A running service, as {@link ServiceClient.info} reports the service. */
export interface ServiceInfo {
  /** The process of the service. */
  readonly pid: number;
  /** The version of this package in the service. */
  readonly version: string;
  /** When the service began, as ISO 8601. */
  readonly since: string;
  /** Whether the first reload has ended: every device is served, or has failed. */
  readonly ready: boolean;
  /** The file of the configuration; absent for a service of a program. */
  readonly config?: string | undefined;
  /** The names of the devices that the service serves now. */
  readonly devices: readonly string[];
  /** The steps of the last reload. */
  readonly results: readonly ServiceResult[];
}

/** A device of a service. */
export interface ServedDevice extends DeviceInfo {
  readonly name: string;
  readonly buffers: Buffering;
  /** The counters of all queues. */
  readonly total: Counters;
  /** How many stalls the watchdog of the device has reported. */
  readonly stalled: number;
  /** Of a device with the option `latencies`. */
  readonly latencies?: DeviceLatencies;
}

/** An event of a service. Each has the `time`, as ISO 8601. */
export type ServiceEvent = { readonly time: string } & (
  | {
      /** The first event of each stream: the state at the beginning of the stream. */
      readonly event: 'hello';
      readonly service: ServiceInfo;
    }
  | {
      /** A device can be opened. */
      readonly event: 'serve';
      readonly name: string;
      readonly id: number;
      readonly path: string;
    }
  | {
      /** The service of a device has ended; with the error of a device that failed. */
      readonly event: 'end';
      readonly name: string;
      readonly id: number;
      readonly path: string;
      readonly error?: UblkError;
    }
  | {
      /** A warning of a device: {@link DeviceEvents.warning}. */
      readonly event: 'warning';
      readonly name: string;
      readonly id: number;
      readonly path: string;
      readonly warning: UblkError;
    }
  | ({
      /** Requests wait, and none completes. */
      readonly event: 'stall';
      readonly name: string;
      readonly id: number;
      readonly path: string;
    } & Stall)
  | {
      /** After `stall`: a request has completed. */
      readonly event: 'resume';
      readonly name: string;
      readonly id: number;
      readonly path: string;
    }
  | {
      /** The watchdog of a device reports a request or a thread: {@link DeviceEvents.stalled}. */
      readonly event: 'stalled';
      readonly name: string;
      readonly id: number;
      readonly path: string;
      readonly stalled: Stalled;
    }
  | {
      /** A reload has ended. */
      readonly event: 'reload';
      readonly results: readonly ServiceResult[];
    }
);
