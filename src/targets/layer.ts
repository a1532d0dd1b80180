import { wrong } from '../errors.ts';
import type { Target } from './index.ts';

/** The largest number of targets in a layer. */
const MOST = 64;

/** Checks that `value` may be a target; the conversion checks the options. */
export function checkTarget(value: unknown, name: string): Target {
  refuseHandler(value, name);
  if (typeof value === 'object' && value !== null && 'kind' in value) return value as Target;
  throw wrong(
    name,
    'is no target',
    "make it with one of targets, for example targets.file('disk.img')",
  );
}

/** Checks the targets of a layer. */
export function checkTargets(value: unknown, name: string): readonly Target[] {
  if (!Array.isArray(value)) throw wrong(name, 'must be an array of targets');
  if (value.length < 1 || value.length > MOST) {
    throw wrong(name, `has ${value.length} targets; it must have from 1 to ${MOST}`);
  }
  return value.map((one, index) => checkTarget(one, `${name}[${index}]`));
}

/** Refuses a handler in the place of a native target: below a layer, or as a handler's backend. */
export function refuseHandler(value: unknown, name: string): void {
  if (!isLikeHandler(value)) return;
  throw wrong(
    name,
    'is a handler, which cannot lie below another target',
    'make the handler the target of the device, and give it the native targets as backends',
  );
}

function isLikeHandler(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const { kind, read, map } = value as { kind?: unknown; read?: unknown; map?: unknown };
  if (kind !== undefined) return kind === 'module';
  return typeof read === 'function' || typeof map === 'function';
}
