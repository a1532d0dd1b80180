import { describe, expect, test } from 'vitest';

import { createProgram } from '../../../src/cli/program.ts';

const commands = createProgram().commands;
const targetsOf = (name: string) => commands.find((one) => one.name() === name)?.commands ?? [];

describe.each(['add', 'export'])('ublk %s', (name) => {
  // The command leaves out its own option where a target has one of this name.
  test('has no target with an option that hides an option of the command by another meaning', () => {
    const targets = targetsOf(name);
    const inAll = targets[0]?.options.filter(({ long }) =>
      targets.every(({ options }) => options.some((other) => other.long === long)),
    );
    expect(inAll?.length).toBeGreaterThan(10);
    for (const { long } of inAll ?? []) {
      const all = targets.map((target) => ({
        target: target.name(),
        says: target.options.find((option) => option.long === long)?.description ?? '',
      }));
      const shortest = all.map(({ says }) => says).toSorted((a, b) => a.length - b.length)[0] ?? '';
      const others = all.filter(({ says }) => !says.startsWith(shortest));
      expect({ long, others }).toEqual({ long, others: [] });
    }
  });

  test('has no two options of a target whose values have one name', () => {
    for (const target of targetsOf(name)) {
      const names = target.options.map((option) => option.attributeName());
      const pairs = target.options.filter(({ negate }) => negate).map((one) => one.attributeName());
      const twice = names.filter((one, at) => names.indexOf(one) !== at && !pairs.includes(one));
      expect({ target: target.name(), twice }).toEqual({ target: target.name(), twice: [] });
      expect(names).not.toContain('exports');
      expect(names).not.toContain('recover');
    }
  });
});

test('every export can be for reading only', () => {
  const without = targetsOf('export').filter(
    ({ options }) => !options.some(({ long }) => long === '--read-only'),
  );
  expect(without.map((target) => target.name())).toEqual([]);
});
