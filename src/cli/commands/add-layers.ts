import { parseImage } from '../../targets/rbd.ts';
import { targets, type PresentationOptions, type Target } from '../../targets/index.ts';
import { serve, type AddFlags, type ErrorFlags } from './add.ts';

/** The flags of layers, whose parts may be files. */
export interface PartsFlags extends AddFlags {
  readonly lock: boolean;
  readonly readOnly?: true;
  readonly blockSize?: number;
}

/** The flags of `ublk add striped`. */
export interface StripedFlags extends PartsFlags {
  readonly chunk?: string;
}

/** The flags of `ublk add delay`. */
export interface DelayFlags extends PartsFlags {
  readonly readUs?: number;
  readonly writeUs?: number;
  readonly flushUs?: number;
}

/** The flags of `ublk add zoned`. */
export interface ZonedFlags extends AddFlags {
  readonly zoneSize: string;
  readonly zoneCapacity?: string;
  readonly size?: string;
  readonly state?: string;
  readonly createState?: true;
  readonly conventional?: number;
  readonly maxOpen?: number;
  readonly maxActive?: number;
}

/** `ublk add striped TARGET...` */
export async function addStriped(parts: string[], flags: StripedFlags): Promise<void> {
  const target = targets.striped(all(parts, flags), { chunk: flags.chunk, ...presentation(flags) });
  await serve(target, `stripes over ${parts.join(', ')}`, flags);
}

/** `ublk add linear TARGET...` */
export async function addLinear(parts: string[], flags: PartsFlags): Promise<void> {
  const target = targets.linear(all(parts, flags), presentation(flags));
  await serve(target, parts.join(', then '), flags);
}

/** `ublk add delay TARGET` */
export async function addDelay(part: string, flags: DelayFlags): Promise<void> {
  const { readUs, writeUs, flushUs } = flags;
  const target = targets.delay(parseTarget(part, flags), {
    readUs,
    writeUs,
    flushUs,
    ...presentation(flags),
  });
  await serve(target, `${part}, late`, flags);
}

/** `ublk add error` */
export async function addError({ size, ...flags }: ErrorFlags): Promise<void> {
  await serve(targets.error({ size }), 'errors', flags);
}

/** `ublk add zoned [IMAGE]` */
export async function addZoned(path: string | undefined, flags: ZonedFlags): Promise<void> {
  const { zoneSize, zoneCapacity, size, state, createState: create } = flags;
  const { conventional, maxOpen, maxActive } = flags;
  const counts = {
    conventionalZones: conventional,
    maxOpenZones: maxOpen,
    maxActiveZones: maxActive,
  };
  const target = targets.zoned({ path, size, zoneSize, zoneCapacity, state, create, ...counts });
  await serve(target, `zones in ${path ?? 'memory'}`, flags);
}

/**
 * A target in one word: `qcow2:IMAGE`, `overlay:LAYER:BASE`, `null:SIZE`, `error:SIZE`, the URI of an NBD export,
 * `rbd:` and an image's name, the URL of a file on a web server, or the path of a file.
 */
export function parseTarget(
  text: string,
  { lock, readOnly }: Partial<Pick<PartsFlags, 'lock' | 'readOnly'>> = {},
): Target {
  const [, kind, size = ''] = /^(null|error|qcow2):(.*)$/.exec(text) ?? [];
  if (kind === 'null') return targets.null({ size });
  if (kind === 'qcow2') return targets.qcow2(size, { lock });
  if (kind === 'error') return targets.error({ size });
  const overlay = /^overlay:([^:]+):(.+)$/.exec(text);
  if (overlay) return frozenLayer(overlay[1] ?? '', overlay[2] ?? '');
  if (/^nbds?(\+unix)?:\/\//.test(text)) return targets.nbd(text, { readOnly });
  if (/^https?:\/\//.test(text)) return targets.http(text);
  if (text.startsWith('rbd:')) {
    const { image, ...place } = parseImage(text.slice('rbd:'.length));
    return targets.rbd(image, { ...place, lock, readOnly });
  }
  return targets.file(text, { lock, readOnly });
}

function all(parts: readonly string[], flags: PartsFlags): Target[] {
  return parts.map((part) => parseTarget(part, flags));
}

function presentation({ readOnly, blockSize }: PartsFlags): PresentationOptions {
  return { readOnly, logicalBlockSize: blockSize };
}

/** `overlay:LAYER:BASE`: the disk of a frozen layer; the base may be such a word again. */
function frozenLayer(layer: string, base: string): Target {
  return targets.overlay(parseTarget(base, { readOnly: true }), layer, { readOnly: true });
}
