import { toFamilies } from '../../metrics/families.ts';
import { machineSources } from '../../metrics/machine.ts';
import { serveScrapes } from '../../metrics/scrapes.ts';
import { toText } from '../../metrics/text.ts';
import { packageVersion } from '../../version.ts';
import { hearSignals } from '../signals.ts';

/** The flags of `ublk metrics`. */
export interface MetricsFlags {
  /** An address of TCP. */
  readonly listen?: string;
}

/** `ublk metrics`: once, or at each scrape until a signal. */
export async function metrics({ listen }: MetricsFlags): Promise<void> {
  const text = async (): Promise<string> =>
    toText(toFamilies(await machineSources(), packageVersion()));
  if (listen === undefined) {
    process.stdout.write(await text());
    return;
  }
  const { first } = hearSignals();
  await using server = await serveScrapes(listen, '--listen', text);
  // Scripts wait for this line.
  process.stdout.write(`${server.url}\n`);
  if (!first.aborted) await new Promise((resolve) => first.addEventListener('abort', resolve));
}
