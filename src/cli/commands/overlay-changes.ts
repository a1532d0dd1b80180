import { open } from 'node:fs/promises';
import { isatty } from 'node:tty';

import { invalid, messageOf, UblkError, UblkErrorCode } from '../../errors.ts';
import { applyOverlayChanges, streamOverlayChanges } from '../../overlay-changes.ts';
import { overlayDiff } from '../../overlays.ts';
import { answer, table, type OutputFlags } from '../output.ts';
import { withProgress } from '../progress.ts';
import { parseTarget } from './add-layers.ts';

const [STDIN, STDOUT] = [0, 1];

/** The flags of `ublk overlay diff`. */
export interface DiffFlags extends OutputFlags {
  readonly from?: string;
  readonly stream?: true;
}

/** The flags of `ublk overlay apply`. */
export interface ApplyFlags extends OutputFlags {
  readonly to: string;
  readonly base?: string;
}

/** `ublk overlay diff LAYER` */
export async function diff(path: string, { from, stream, ...flags }: DiffFlags): Promise<void> {
  if (stream) return await writeChanges(path, from, flags);
  const changes = await overlayDiff(path, { from });
  const rows = changes.map(({ offset, length, zeros }) => [
    String(offset),
    String(length),
    zeros ? 'zeros' : 'data',
  ]);
  await answer(flags, changes, () => table(rows, ['offset', 'length', 'kind']));
}

async function writeChanges(
  path: string,
  from: string | undefined,
  { json }: OutputFlags,
): Promise<void> {
  if (json) throw invalid('--stream writes the changes to stdout, and no JSON');
  if (isatty(STDOUT)) {
    throw invalid('the changes are no text for a terminal', 'redirect them: > FILE');
  }
  await withProgress('the changes', (options) =>
    streamOverlayChanges(path, STDOUT, { from, ...options }),
  );
}

/** `ublk overlay apply CHANGES --to LAYER` */
export async function apply(changes: string, { to, base, ...flags }: ApplyFlags): Promise<void> {
  const below = base === undefined ? undefined : parseTarget(base, { readOnly: true });
  const run = (input: number) =>
    withProgress('the changes', (options) =>
      applyOverlayChanges(input, to, { base: below, ...options }),
    );
  if (changes === '-') await run(STDIN);
  else await withFile(changes, run);
  await answer(flags, { path: to }, () => to);
}

async function withFile(path: string, run: (fd: number) => Promise<void>): Promise<void> {
  const file = await open(path).catch((error: unknown) => {
    const message = `cannot read the changes: ${messageOf(error)}`;
    throw new UblkError(UblkErrorCode.NoBackend, message, { cause: error });
  });
  try {
    await run(file.fd);
  } finally {
    await file.close();
  }
}
