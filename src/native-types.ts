import type { Failure, Outcome } from './errors.ts';
import type {
  BufferMode,
  Buffering,
  Counters,
  DeviceInfo,
  ExchangeMode,
  Recovery,
} from './info.ts';
import type { OverlayMerged } from './overlay-merges.ts';
import type { OverlaySnapshot } from './overlays.ts';
import type { NativeQueueSettings } from './queue-settings.ts';

/** A target for the addon. */
export interface NativeTarget {
  readonly kind:
    | 'null'
    | 'error'
    | 'file'
    | 'striped'
    | 'linear'
    | 'delay'
    | 'zoned'
    | 'overlay'
    | 'qcow2'
    | 'nbd'
    | 'rbd'
    | 'http'
    | 'handler';
  readonly size?: number;
  readonly path?: string;
  readonly direct?: 'auto' | 'yes' | 'no';
  readonly readOnly?: boolean;
  readonly lock?: boolean;
  readonly logicalBlockSize?: number;
  readonly targets?: readonly NativeTarget[];
  readonly chunk?: number;
  readonly readUs?: number;
  readonly writeUs?: number;
  readonly flushUs?: number;
  readonly zones?: NativeZones;
  readonly bridge?: number;
  readonly ops?: readonly string[];
  readonly fua?: boolean;
  readonly integrity?: NativeIntegrity;
  readonly create?: boolean;
  readonly history?: string;
  readonly loseUnflushed?: boolean;
  readonly nbd?: NativeNbd;
  readonly rbd?: NativeRbd;
  readonly http?: NativeHttp;
}

/** An export of an NBD server for the addon. */
export interface NativeNbd {
  readonly uri: string;
  readonly connectTimeoutMs?: number;
  readonly reconnectTimeoutMs?: number;
  readonly answerTimeoutMs?: number;
  readonly tlsCertificates?: string;
}

/** A file on a web server for the addon. */
export interface NativeHttp {
  readonly url: string;
  readonly answerTimeoutMs?: number;
  readonly retryTimeoutMs?: number;
  readonly connections?: number;
  readonly authorities?: string;
}

/** An image of Ceph RBD for the addon. */
export interface NativeRbd {
  readonly image: string;
  readonly pool: string;
  readonly namespace?: string;
  readonly snapshot?: string;
  readonly user?: string;
  readonly cluster?: string;
  readonly conf?: string;
  readonly keyring?: string;
  readonly lock?: boolean;
  readonly connectTimeoutMs?: number;
  readonly requestTimeoutMs?: number;
}

/** Metadata options for the addon. */
export interface NativeIntegrity {
  readonly checksum: 'none' | 'ip' | 'crc16' | 'crc64';
  readonly metadataSize: number;
  readonly piOffset: number;
  readonly interval?: number;
  readonly tagSize: number;
  readonly referenceTags: boolean;
  readonly capable: boolean;
  readonly path?: string;
  readonly create?: boolean;
}

/** The zones of a zoned target for the addon. */
export interface NativeZones {
  readonly size: number;
  readonly capacity?: number;
  readonly conventional: number;
  readonly maxOpen: number;
  readonly maxActive: number;
  readonly state?: string;
  readonly create?: boolean;
}

/** Limits of a device for the addon, in bytes. */
export interface NativeLimits {
  readonly dmaAlignment?: number;
  readonly maxSegments?: number;
  readonly maxSegmentSize?: number;
  readonly segmentBoundary?: number;
}

/** Limits of a class of requests per second. */
export interface NativeRates {
  readonly iops?: number;
  readonly bytes?: number;
}

/** Limits of a device's requests per second; `burst` in seconds. */
export interface NativeThrottle {
  readonly all: NativeRates;
  readonly read: NativeRates;
  readonly write: NativeRates;
  readonly burst?: number;
}

/** The latencies of one kind of requests, in nanoseconds. */
export interface NativeHistogram {
  /** The number of requests in each bucket; `latencyBounds` has the bounds. */
  readonly buckets: readonly number[];
  readonly sum: number;
}

/** A device for the addon; absent options have the addon's defaults. */
export interface NativeDeviceOptions {
  readonly target: NativeTarget;
  readonly id?: number;
  readonly queues?: number;
  readonly depth?: number;
  readonly maxIoBytes?: number;
  readonly buffers?: readonly BufferMode[];
  readonly exchange?: ExchangeMode;
  readonly spinUsec?: number;
  readonly splitRegister?: boolean;
  readonly rotateSlots?: boolean;
  readonly threads?: number;
  readonly ringsApart?: boolean;
  readonly pin?: boolean;
  readonly queue?: NativeQueueSettings;
  readonly limits?: NativeLimits;
  readonly affinity?: readonly number[];
  readonly recovery?: Recovery;
  readonly partScan?: boolean;
  readonly unprivileged?: boolean;
  readonly ioDescSize?: number;
  readonly timeoutMs?: number;
  readonly throttle?: NativeThrottle;
  readonly watchdog?: NativeWatchdog;
}

/** The watchdog of a device; the addon ignores the action. */
export interface NativeWatchdog {
  readonly afterMs: number;
  readonly action: string;
}

/** A request that does not end, or a thread that does not answer. */
export interface NativeStall {
  readonly ageMs: number;
  readonly waitsFor: string;
  readonly file?: string;
  readonly thread?: string;
  readonly queue?: number;
  /** `UBLK_IO_OP_*` */
  readonly op?: number;
  readonly offset?: number;
  readonly length?: number;
}

/** The end of a device. */
export interface NativeEnd {
  readonly reason: 'closed' | 'stopped' | 'quiesced' | 'failed';
  readonly failure?: Failure;
}

/** A watch on a device's completions: `completions.ts` knows the format of the records. */
export interface NativeWatch {
  take(): { readonly records: Buffer; readonly dropped: number };
  end(): void;
}

/** An export for the addon: either `socket`, or `host` and `port`. */
export interface NativeExport {
  readonly socket?: string;
  readonly host?: string;
  readonly port?: number;
  readonly name: string;
  readonly description: string;
  readonly readOnly: boolean;
  readonly connections: number;
  readonly tlsCertificates?: string;
  readonly tlsAnyone: boolean;
}

/** An open device of the addon. */
export interface NativeDevice {
  info(): DeviceInfo;
  /** Where clients of an export connect to; null for a block device. */
  address(): string | null;
  buffers(): { mode: Buffering['mode']; userCopy: boolean; shared: boolean };
  exchangeMode(): ExchangeMode;
  stats(): Counters[];
  watch(capacity: number): NativeWatch;
  measure(): void;
  latencies(): NativeHistogram[] | null;
  stalls(): NativeStall[];
  resize(size: number): Promise<Outcome<DeviceInfo>>;
  throttle(limits: NativeThrottle): Outcome<void>;
  snapshot(children: readonly string[], path?: string): Promise<Outcome<OverlaySnapshot>>;
  frozen(): Promise<Outcome<FrozenLayers | null>>;
  flatten(prunes: boolean, pace: number, task: NativeOverlayTask): Promise<Outcome<OverlayMerged>>;
  quiesce(): Promise<Outcome<void>>;
  share(path: string, readOnly: boolean): Promise<Outcome<number>>;
  unshare(index: number): Promise<Outcome<void>>;
  /** Leaves a device with recovery to the next server, and closes one without. */
  part(): Promise<Outcome<void>>;
  /** Leaves a device with recovery that a client has open, and closes any other device. */
  release(): Promise<Outcome<void>>;
  close(): Promise<Outcome<void>>;
}

/** A device that has its parameters, and has not started. */
export type AddedDevice = DeviceInfo &
  Required<Pick<DeviceInfo, 'size' | 'logicalBlockSize' | 'readOnly'>>;

/** What makes devices: the addon, with reactors for each device, or a pool. */
export interface NativeMaker {
  createDevice(
    options: NativeDeviceOptions,
    onEnd: (end: NativeEnd) => void,
    onAdded?: (device: AddedDevice) => void,
  ): Promise<Outcome<NativeDevice>>;
  recoverDevice(
    id: number,
    options: NativeDeviceOptions,
    onEnd: (end: NativeEnd) => void,
  ): Promise<Outcome<NativeDevice>>;
}

/** Reactors shared by devices. */
export interface NativePool extends NativeMaker {
  reactors(): number;
  close(): Promise<Outcome<void>>;
}

/** Options of a bridge between a device's reactors and a handler. */
export interface NativeBridgeOptions {
  readonly queues: number;
  readonly depth: number;
  readonly maxPieces: number;
  readonly timeoutMs: number;
}

/** A bridge: calls back into JavaScript, but does not keep the event loop alive. */
export interface NativeBridge {
  readonly id: number;
  release(): void;
}

/** A problem on a bridge: `timed-out`, `late`, `blocked`, `unblocked`, or the name of a misfit. */
export interface NativeReport {
  readonly kind: string;
  readonly queue: number;
  readonly tag: number;
  readonly op: number;
  readonly offset: number;
  readonly length: number;
  readonly ms: number;
}

/** The layout of the memory of a {@link NativeChannel}, in words. */
export interface NativePlaces {
  readonly version: number;
  readonly requests: number;
  readonly requestCount: number;
  readonly answers: number;
  readonly answerCount: number;
  readonly pieces: number;
  readonly maxPieces: number;
}

/** The answering end of a queue of a bridge. */
export interface NativeChannel {
  /** Call once. */
  memory(): Outcome<ArrayBuffer>;
  places(): NativePlaces;
  /** Call once for each buffer of the tag. */
  buffer(tag: number): Outcome<ArrayBuffer | null>;
  keepBuffer(tag: number): void;
  // These return functions, since calls of a method of the addon cost far more.
  /** Returns the function that wakes the reactor, by a value of `OWES_*`. */
  payer(): (debt: number) => void;
  /** Returns the function that looks for requests without sleeping, if spinning is on. */
  looker(): () => boolean;
  /** Returns the function that looks for requests, then sleeps until a request comes. */
  waiter(limitUs: number): (debt: number) => boolean;
  release(): void;
}

/** The frequency of faults in a simulation, per thousand. */
export interface NativeFaults {
  readonly short: number;
  readonly error: number;
  readonly interrupted: number;
  readonly command: number;
  readonly delay: number;
}

/** Options of a simulation for the addon. */
export interface NativeSimulationOptions {
  readonly seed: number;
  readonly kernel: '7.3' | '6.12';
  readonly faults: NativeFaults;
}

/** An operation on a simulated disk. */
export interface NativeDiskOperation {
  readonly kind: 'read' | 'write' | 'flush' | 'discard' | 'writeZeroes';
  readonly offset: number;
  readonly length: number;
  readonly data?: Buffer;
  readonly fua: boolean;
}

/** The result of an operation: the index in the batch, the read data, an errno or 0. */
export interface NativeDiskOutcome {
  readonly place: number;
  readonly data: Buffer;
  readonly errno: number;
}

/** A simulated disk of the addon. */
export interface NativeSimulation {
  serve(target: NativeTarget, onEnd: (end: NativeEnd) => void): Promise<Outcome<NativeDevice>>;
  powerCycle(target: NativeTarget, onEnd: (end: NativeEnd) => void): Promise<Outcome<NativeDevice>>;
  begin(
    operations: NativeDiskOperation[],
    cutPower: boolean,
    onEnded: (ended: NativeDiskOutcome[]) => void,
  ): Outcome<void>;
  setFaults(faults: NativeFaults): void;
  injected(): { short: number; error: number; interrupted: number; command: number };
  close(): Promise<Outcome<void>>;
}

/** A layer in a folder, of the addon. */
export interface NativeBranch {
  readonly path: string;
  readonly layer: string;
  readonly generation: number;
  readonly size: number;
  readonly allocated: number;
  readonly frozen: boolean;
  readonly closed: boolean;
  /** The file of the layer below, or of the base. */
  readonly below?: string | undefined;
  /** Whether the layer stands on a layer. */
  readonly onLayer: boolean;
  readonly server?: number | undefined;
}

/** The frozen layers below a disk. */
export interface FrozenLayers {
  readonly layers: number;
  /** Bytes that their files take. */
  readonly allocated: number;
  /** Bytes that a single layer with the same contents stores. */
  readonly stored: number;
}

/** A verb on an overlay under way. */
export interface NativeOverlayTask {
  /** Bytes that are done, and all bytes. */
  progress(): number[];
  cancel(): void;
}
