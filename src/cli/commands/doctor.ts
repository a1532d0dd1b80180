import type { Finding } from '../doctor/finding.ts';
import { examine, verdict } from '../doctor/index.ts';
import { thisSystem } from '../doctor/system.ts';
import { answer, paint, table, type OutputFlags, type Style } from '../output.ts';

const COLOURS: Record<Finding['status'], Style> = { ok: 'green', warn: 'yellow', fail: 'red' };

/** `ublk doctor`; exit status 1 if anything fails. */
export async function doctor(flags: OutputFlags): Promise<void> {
  const findings = await examine(thisSystem);
  const ok = findings.every((one) => one.status !== 'fail');
  const all = verdict(findings);
  await answer(flags, { ok, verdict: all, findings }, async () => {
    return `${await table(findings.flatMap(rows))}\n\n${paint('bold', all)}`;
  });
  if (!ok) process.exitCode = 1;
}

function rows({ status, name, detail, fix }: Finding): string[][] {
  const line = [paint(COLOURS[status], status), name, detail];
  return fix === undefined ? [line] : [line, ['', '', paint('bold', `-> ${fix}`)]];
}
