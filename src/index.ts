/// <reference types="node" preserve="true" />
/**
 * Serves Linux block devices (`/dev/ublkbN`) from Node.js. Importing this does nothing; the native
 * addon loads when it is first needed.
 *
 * @module ublk
 */
export type { CompletionsMessage, CreateMessage, EndMessage } from './channels.ts';
export type { Completion, CompletionBatch, CompletionsOptions } from './completions.ts';
export { createDevice } from './create.ts';
export type { CreateDeviceContext } from './create.ts';
export type { Device, DeviceEvents, EndReason } from './device.ts';
export type { FeatureOptions } from './device-features.ts';
export {
  deleteDevice,
  deviceUsers,
  features,
  getDeviceInfo,
  listDevices,
  quiesceDevice,
  resizeDevice,
  setDeviceAffinity,
  stopDevice,
} from './devices.ts';
export type { DeleteOptions, ResizeOptions, StopOptions } from './devices.ts';
export type { DeviceOptions } from './options.ts';
export { latencyPercentile } from './latencies.ts';
export type { DeviceLatencies, LatencyHistogram, LatencyKind } from './latencies.ts';
export { listOrphans, prune } from './orphans.ts';
export type { OrphanRecord, Orphans, Pruned, PruneOptions } from './orphans.ts';
export { applyOverlayChanges, streamOverlayChanges } from './overlay-changes.ts';
export type { ApplyOptions, StreamOptions } from './overlay-changes.ts';
export { overlayCheck, overlayTree } from './overlay-folders.ts';
export type {
  CheckOptions,
  OverlayBranch,
  OverlayProblem,
  OverlayReport,
  OverlayRoot,
} from './overlay-folders.ts';
export { commitOverlay, exportOverlay, flattenOverlay } from './overlay-merges.ts';
export type {
  CommitOptions,
  ExportOptions,
  FlattenOptions,
  OverlayExport,
  OverlayMerged,
} from './overlay-merges.ts';
export { rebaseOverlay } from './overlay-rebase.ts';
export type { OverlayRebased, RebaseOptions } from './overlay-rebase.ts';
export type { OverlayProgress, OverlayTaskOptions } from './overlay-task.ts';
export { createOverlay, forkOverlay, overlayDiff, overlayInfo } from './overlays.ts';
export type {
  CreateOverlayOptions,
  DiffOptions,
  ForkOptions,
  OverlayChange,
  OverlayLayer,
  OverlaySnapshot,
  SnapshotOptions,
} from './overlays.ts';
export { exportNbd } from './nbd-export.ts';
export type { ExportNbdOptions, ExportTls, NbdAddress, NbdExport } from './nbd-export.ts';
export { createReactorPool, ReactorPool } from './pool.ts';
export type { ReactorPoolOptions } from './pool.ts';
export { recoverDevice } from './recover.ts';
export type { RecoverOptions } from './recover.ts';
export type { PlacementOptions, ServingOptions } from './serving.ts';
export { closeOnSignals } from './signals.ts';
export type { CloseOnSignalsOptions } from './signals.ts';
export { UblkError, UblkErrorCode } from './errors.ts';
export type { RequestInfo } from './errors.ts';
export type {
  BufferMode,
  Buffering,
  Counters,
  DeviceInfo,
  DeviceState,
  DeviceStats,
  DeviceUser,
  DeviceUsers,
  ExchangeMode,
  Feature,
  Recovery,
  StopCheck,
} from './info.ts';
export { connectService } from './control/client.ts';
export type { RequestOptions, ServiceClient } from './control/client.ts';
export type { ServedDevice, ServiceEvent, ServiceInfo } from './control/protocol.ts';
export { openControl } from './control/open.ts';
export type { ControlOptions, ControlSocket } from './control/open.ts';
export type { DeviceLimits } from './limits.ts';
export type { RequestOp } from './request-op.ts';
export type { QueueSettings } from './queue-settings.ts';
export { handler } from './handler/handler.ts';
export { IoError } from './handler/io-error.ts';
export { handlerModule } from './handler/module.ts';
export type { HandlerModule, HandlerModuleOptions } from './handler/module.ts';
export type { IoErrorCode } from './handler/io-error.ts';
export type { HandlerRequest } from './handler/request.ts';
export type { Answer, Handler, Method, Piece } from './handler/types.ts';
export type { Zone, ZoneCondition } from './handler/zone-report.ts';
export type { HandlerZones } from './handler/zones.ts';
export type { SharedMemory, ShareOptions } from './memory.ts';
export type { MetricFamily, MetricSample } from './metrics/families.ts';
export { metrics } from './metrics/metrics.ts';
export type { Metrics, MetricsOptions } from './metrics/metrics.ts';
export type { MetricsRegistry } from './metrics/registry.ts';
export { telemetry } from './metrics/telemetry.ts';
export type { TelemetryMeter, TelemetryResult } from './metrics/telemetry.ts';
export { handOver, planHandOver } from './handover/hand-over.ts';
export type { HandOverOptions, PlanHandOverOptions } from './handover/hand-over.ts';
export type { HandOverStep } from './handover/prepare.ts';
export { defineConfig } from './service/config.ts';
export type { DeviceConfig, ServiceConfig } from './service/config.ts';
export type { ServiceAction, ServiceStep } from './service/plan.ts';
export { serve, Service } from './service/service.ts';
export type { ServeContext, ServiceEvents, ServiceResult } from './service/service.ts';
export type { Stall } from './service/stalls.ts';
export type { ThrottleOptions, ThrottleRates } from './throttle.ts';
export type { DeviceFlattenOptions, MergeOptions } from './merges.ts';
export type { Stalled, WatchdogAction, WatchdogOptions } from './watchdog.ts';
export { formatSize, parseSize } from './size.ts';
export type { Size } from './size.ts';
export { targets } from './targets/index.ts';
export type {
  Checksum,
  DelayTarget,
  DelayTargetOptions,
  ErrorTarget,
  ErrorTargetOptions,
  FileIntegrityOptions,
  FileTarget,
  FileTargetOptions,
  IntegrityOptions,
  LinearTarget,
  LinearTargetOptions,
  HttpTarget,
  HttpTargetOptions,
  NbdTarget,
  NbdTargetOptions,
  RbdTarget,
  RbdTargetOptions,
  NullTarget,
  NullTargetOptions,
  OverlayTarget,
  OverlayTargetOptions,
  PresentationOptions,
  Qcow2Target,
  Qcow2TargetOptions,
  StripedTarget,
  StripedTargetOptions,
  Target,
  ZonedTarget,
  ZonedTargetOptions,
} from './targets/index.ts';
