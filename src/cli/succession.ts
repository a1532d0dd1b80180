import { UblkError, UblkErrorCode } from '../errors.ts';
import type { Predecessor } from '../handover/predecessor.ts';
import type { HandOverStep, Preparation } from '../handover/prepare.ts';
import type { Service } from '../service/service.ts';
import { report } from './report.ts';
import type { ManagerPlace } from './systemd/manager.ts';

/** The old server of a hand-over, and what the new server has prepared. */
export interface Takeover extends Preparation {
  readonly predecessor: Predecessor;
  /** The service manager of the old server. */
  readonly manager: ManagerPlace | undefined;
}

/** A hand-over to this process. Disposed of before {@link done}, gives the devices back to the old server. */
export class Succession implements AsyncDisposable {
  readonly #takeover: Takeover;
  readonly #service: Service;
  #problem: UblkError = new UblkError(UblkErrorCode.Closed, 'the new server has failed');

  constructor(takeover: Takeover, service: Service) {
    this.#takeover = takeover;
    this.#service = service;
  }

  /**
   * Takes all devices over; returns a step for each device, with an error for a device that a dead server has
   * left and that cannot be served.
   *
   * @throws {UblkError} The reason why the old server keeps the devices.
   */
  async take(signal: AbortSignal): Promise<HandOverStep[]> {
    const { predecessor, devices, steps } = this.#takeover;
    try {
      const lost = await predecessor.take(this.#service, devices, signal);
      const errors = new Map(lost.map(({ name, error }) => [name, error]));
      return steps
        .filter(({ action }) => action === 'take-over')
        .map((step) => Object.assign({}, step, { error: errors.get(step.name) }));
    } catch (error) {
      this.#problem = UblkError.is(error) ? error : givenUp(error);
      throw this.#problem;
    }
  }

  /** This process has opened its sockets: the old server leaves. */
  async done(): Promise<void> {
    await this.#takeover.predecessor.done();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const lost = await this.#takeover.predecessor.giveBack(this.#service, this.#problem);
    for (const { error } of lost) report(error, false);
  }
}

function givenUp(cause: unknown): UblkError {
  const message = 'the upgrade was given up: the old server goes on';
  return new UblkError(UblkErrorCode.Closed, message, { cause });
}
