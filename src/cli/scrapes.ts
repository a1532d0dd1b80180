import { toFamilies } from '../metrics/families.ts';
import { sourcesOf } from '../metrics/metrics.ts';
import { serveScrapes, type ScrapeServer } from '../metrics/scrapes.ts';
import { toText } from '../metrics/text.ts';
import type { Service } from '../service/service.ts';
import { packageVersion } from '../version.ts';

/** Answers the scrapes of a service at the address of the command or of the configuration. */
export class Scrapes implements AsyncDisposable {
  readonly #service: Service;
  readonly #fixed: string | undefined;
  #now: { readonly address: string; readonly server: ScrapeServer } | undefined;

  /** The address before {@link close}. */
  #closed: string | undefined;

  /** @param fixed The address of the command, which is in place of that of the configuration. */
  constructor(service: Service, fixed: string | undefined) {
    this.#service = service;
    this.#fixed = fixed;
  }

  /**
   * Moves to the address that the configuration declares now; without an address, no scrape is answered.
   * Says the new address on stderr. After an error nothing has changed.
   *
   * @throws {UblkError} The errors of {@link serveScrapes}.
   */
  async listen(declared: string | undefined): Promise<void> {
    const address = this.#fixed ?? declared;
    const before = this.#now;
    if (address === before?.address) return;
    this.#now = address === undefined ? undefined : { address, server: await this.#serve(address) };
    await before?.server[Symbol.asyncDispose]();
    if (this.#now !== undefined) process.stderr.write(`metrics at ${this.#now.server.url}\n`);
  }

  /** Answers no scrapes until {@link reopen}: another process is about to answer at the address. */
  async close(): Promise<void> {
    this.#closed = this.#now?.address;
    await this[Symbol.asyncDispose]();
  }

  /** Answers scrapes at the address before {@link close} again. */
  async reopen(): Promise<void> {
    await this.listen(this.#closed);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const before = this.#now;
    this.#now = undefined;
    await before?.server[Symbol.asyncDispose]();
  }

  async #serve(address: string): Promise<ScrapeServer> {
    const name = this.#fixed === undefined ? 'metrics' : '--metrics';
    return await serveScrapes(address, name, () =>
      toText(toFamilies(this.#sources(), packageVersion())),
    );
  }

  #sources(): ReturnType<typeof sourcesOf> {
    return sourcesOf(this.#service.devices.values());
  }
}
