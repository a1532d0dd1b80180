import { once } from 'node:events';

import { debug } from '../debug.ts';
import { toError, toUblkError, UblkError, UblkErrorCode } from '../errors.ts';
import type { Heard, MessageOf, Wire } from '../control/wire.ts';
import type { Service } from '../service/service.ts';
import { greet } from './connect.ts';
import { about, type Prepared } from './prepare.ts';

/** How long an old server that has given all devices away may take to end the connection, in ms. */
const FAREWELL_MS = 10_000;

/** A device that no server serves after a hand-over. */
export interface Lost {
  readonly name: string;
  readonly error: UblkError;
}

/** The old server, in the eyes of the new one. */
export class Predecessor {
  readonly #wire: Wire;
  readonly hello: MessageOf<'hello'>;
  /** Whether the old server has died: nobody is left to give a device back to. */
  #isDead = false;
  /** Whether {@link ready} has been sent and no end of the hand-over is known. */
  #isOpen = false;

  private constructor(wire: Wire, hello: MessageOf<'hello'>) {
    this.#wire = wire;
    this.hello = hello;
  }

  /** @throws {UblkError} As {@link greet}. */
  static async connect(path: string): Promise<Predecessor> {
    const { wire, hello } = await greet(path);
    return new Predecessor(wire, hello);
  }

  /**
   * Takes all devices over, one after another, until the old server has closed its sockets or has died: the
   * new server then takes over the rest of the devices, too. Waits for the old server as long as the old
   * server lives, since nobody else can serve its devices. Returns the devices that a dead server has left
   * and that cannot be served.
   *
   * @throws {UblkError} The reason why the hand-over has failed; {@link giveBack} must follow.
   */
  async take(
    service: Service,
    devices: readonly Prepared[],
    signal: AbortSignal,
  ): Promise<readonly Lost[]> {
    const waiting = new Map(devices.map((one) => [one.name, one]));
    const ready = devices.map(({ name, id }) => ({ name, id }));
    this.#wire.send({ message: 'ready', pid: process.pid, devices: ready });
    this.#isOpen = true;
    for (;;) {
      const said = await this.#next(signal);
      if (said.message === 'end') return await this.#inherit(service, [...waiting.values()]);
      if (said.message === 'bye') return [];
      if (said.message === 'refused') throw toError(said.error);
      if (said.message !== 'yours') throw unexpected(said);
      const one = waiting.get(said.name);
      if (one === undefined) throw unexpected(said);
      const { id, options, info } = one;
      await service.adopt(id, options, { info, state: said.state }).catch((error: unknown) => {
        throw about(one.name, toUblkError(error));
      });
      waiting.delete(one.name);
      this.#wire.send({ message: 'alive', name: one.name });
    }
  }

  /** Tells the old server that the new server needs nothing more; resolves when the old server has left. */
  async done(): Promise<void> {
    this.#isOpen = false;
    this.#wire.send({ message: 'done' });
    if (!this.#isDead) await this.#wire.next(FAREWELL_MS);
    this.#wire.end();
  }

  /**
   * Leaves all devices of the hand-over again, after an error, so that the old server takes them back. Returns
   * the devices that the old server has failed to take back. Does nothing after {@link done}.
   */
  async giveBack(service: Service, error: unknown): Promise<readonly Lost[]> {
    if (!this.#isOpen) {
      this.#wire.end();
      return [];
    }
    this.#isOpen = false;
    service.handingOver = true;
    const taken = [...service.devices];
    const left = taken.map(([, device]) => device.quiesce());
    for (const result of await Promise.allSettled(left)) debug('left a device: %o', result);
    this.#wire.send({ message: 'failed', error: toUblkError(error) });
    let said = await this.#wire.next();
    // The old server may have given up by itself at the same time.
    if (said.message === 'refused') said = await this.#wire.next();
    this.#wire.end();
    if (said.message === 'kept') {
      return said.lost.map(({ name, error: why }) => ({ name, error: toError(why) }));
    }
    return taken.map(([name, { id }]) => ({ name, error: orphaned(id) }));
  }

  /** Ends the connection; before {@link take}, nothing has changed. */
  leave(): void {
    this.#wire.end();
  }

  async #next(signal: AbortSignal): Promise<Heard> {
    signal.throwIfAborted();
    const over = new AbortController();
    const aborted = once(signal, 'abort', { signal: over.signal }).catch(() => {});
    try {
      const said = await Promise.race([this.#wire.next(), aborted]);
      if (said !== undefined && 'message' in said) return said;
      throw signal.reason;
    } finally {
      over.abort();
    }
  }

  async #inherit(service: Service, rest: readonly Prepared[]): Promise<readonly Lost[]> {
    this.#isDead = true;
    const taken = rest.map(async ({ name, id, options, info }) => {
      try {
        await service.adopt(id, options, { info });
        return [];
      } catch (error) {
        return [{ name, error: toUblkError(error) }];
      }
    });
    return (await Promise.all(taken)).flat();
  }
}

function unexpected(said: Heard): UblkError {
  const message = `the old server has sent ${JSON.stringify(said).slice(0, 100)} out of turn`;
  return new UblkError(UblkErrorCode.Internal, message);
}

function orphaned(id: number): UblkError {
  const message = 'the old server has ended, and the device waits for its next server';
  return new UblkError(UblkErrorCode.Closed, message, { hint: `ublk recover ${id}` });
}
