import type { KeyPath } from './syntax.ts';

/** The path of the key that an error names, as far as `value` has the key: a missing key is at its object. */
export function pathOf(value: unknown, key: string): KeyPath {
  if (typeof value !== 'object' || value === null) return [];
  const isArray = Array.isArray(value);
  // A name may have dots: of the devices `a` and `a.b`, `a.b.depth` is about the second.
  const steps = Object.entries(value)
    .map(([name, inner]) => ({ name, inner: inner as unknown, text: isArray ? `[${name}]` : name }))
    .sort((a, b) => b.text.length - a.text.length);
  for (const { name, inner, text } of steps) {
    const rest = key.slice(text.length);
    if (!key.startsWith(text) || !/^(\.|\[|$)/.test(rest)) continue;
    return [isArray ? Number(name) : name, ...pathOf(inner, rest.replace(/^\./, ''))];
  }
  return [];
}

/** A path for people: `devices.data.target.targets[0].path`. */
export function nameOf(path: KeyPath): string {
  const [first = '', ...rest] = path;
  return rest.reduce<string>(
    (name, key) => (typeof key === 'number' ? `${name}[${key}]` : `${name}.${key}`),
    String(first),
  );
}
