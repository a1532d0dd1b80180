import { Device } from '../device.ts';
import type { NativeDevice, NativeEnd } from '../native.ts';
import type { Target } from '../targets/index.ts';
import { isHandler } from './handler.ts';
import { isHandlerModule, type HandlerModule } from './module.ts';
import type { DeviceShape, HandlerServer } from './server.ts';
import type { Handler } from './types.ts';

/** The servers of devices that JavaScript answers. */
const servers = new WeakMap<Device, HandlerServer>();

/** The server that answers a device's requests; undefined for a native target. */
export function serverBehind(device: Device): HandlerServer | undefined {
  return servers.get(device);
}

/**
 * The server for a handler's device; undefined for a native target. The first handler loads the modules
 * that answer requests.
 */
export async function serverOf(
  target: Target | Handler | HandlerModule,
  device: DeviceShape,
): Promise<HandlerServer | undefined> {
  const isModule = isHandlerModule(target);
  if (!isModule && !isHandler(target)) return undefined;
  const { HandlerServer } = await import('./server.ts');
  return isModule ? HandlerServer.inWorkers(target, device) : HandlerServer.here(target, device);
}

/** Creates a device, or what `make` makes of a device; `server`, if given, answers requests until the end. */
export async function serve<Made extends Device = Device>(
  server: HandlerServer | undefined,
  ended: Promise<NativeEnd>,
  create: () => Promise<NativeDevice>,
  make: (native: NativeDevice) => Made = (native) => new Device(native, ended) as Made,
): Promise<Made> {
  let native: NativeDevice | undefined;
  try {
    native = await create();
    const device = make(native);
    server?.attach(device, ended);
    if (server) servers.set(device, server);
    return device;
  } catch (error) {
    await native?.release();
    await server?.release();
    throw error;
  }
}
