import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, onTestFinished, test } from 'vitest';

import { UblkError } from '../../../src/errors.ts';
import { checkConfig } from '../../../src/service/config.ts';
import { readJson } from '../../../src/service/json.ts';
import { loadConfig } from '../../../src/service/load.ts';
import { readToml } from '../../../src/service/toml.ts';
import { FILE, WRONG } from './wrong-configs.ts';
import { WRONG_TOML } from './wrong-toml.ts';

function configFile(text: string, name = 'ublk.json'): string {
  const folder = mkdtempSync(join(tmpdir(), 'ublk-config-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

async function errorOf(path: string): Promise<UblkError> {
  const error: unknown = await loadConfig(path).catch((thrown: unknown) => thrown);
  if (UblkError.is(error)) return error;
  throw new Error('the file was taken');
}

describe('a wrong configuration', () => {
  test.each([
    ['JSON', WRONG],
    ['TOML', WRONG_TOML],
  ])('of %s comes in fifty kinds and more', (_, wrong) => {
    expect(wrong.length).toBeGreaterThanOrEqual(50);
  });

  const wrong = [
    ...WRONG.map((one) => ['ublk.json', one[0], one] as const),
    ...WRONG_TOML.map((one) => ['ublk.toml', one[0], one] as const),
  ];
  test.each(wrong)(
    'in %s with %s is one error with line, key and remedy',
    async (name, _, [, text, line, key, says, remedy = /\w+\W+\w+/]) => {
      const path = configFile(text, name);
      const { code, message, hint } = await errorOf(path);
      expect(code).toBe('ERR_UBLK_INVALID_ARGUMENT');
      const start = `${path}:${line}: ${key === '' ? '' : `${key}: `}`;
      expect(message.slice(0, start.length)).toBe(start);
      expect(message).toMatch(says);
      expect(hint).toMatch(remedy);
      expect(message).not.toContain('\n');
    },
  );

  test.each([
    ['ublk.yaml', 'x', /'\.yaml' is no kind of configuration/, /TOML/],
    ['ublk', 'x', /'no extension' is no kind/, /JSON/],
    ['ublk.mjs', 'export const devices = {};', /no default export/, /export default/],

    ['ublk.mjs', '\n\nthrow new Error("no disk");', /line 3: no disk/, /correct the module/],
    ['ublk.mjs', 'import "nowhere-at-all"', /Cannot find package/, /installed\?/],
    [
      'ublk.mjs',
      'export default { devices: { a: {} } }',
      /devices\.a: device 'a' has no target/,
      /kind "file"/,
    ],
  ])('in %s is one error: %s', async (name, text, says, remedy) => {
    const path = configFile(text, name);
    const { message, hint } = await errorOf(path);
    expect(message.startsWith(`${path}: `)).toBe(true);
    expect(message).toMatch(says);
    expect(hint).toMatch(remedy);
  });

  test('that is not there is named', async () => {
    const { message } = await errorOf('/nowhere/ublk.json');
    expect(message).toMatch(/^\/nowhere\/ublk\.json: cannot be read: ENOENT/);
  });

  test('given to serve() names the key', () => {
    const config = { devices: { data: { target: { kind: 'null', size: '1GiB' }, depth: 0 } } };
    expect(() => checkConfig(config)).toThrow(/^devices\.data\.depth: depth is 0/);
    expect(() => checkConfig(config)).toThrow(
      expect.objectContaining({ key: 'devices.data.depth' }),
    );
  });
});

describe('a configuration', () => {
  test('of JSON names its paths from its own folder', async () => {
    const state = '"path": "z.img", "state": "/var/z", "zoneSize": "64KiB"';
    const module = '"target": { "kind": "module", "url": "./disk.js", "data": { "path": "x" } }';
    const overlay =
      '"base": { "kind": "null", "size": 4096 }, "path": "l.layer", "history": "./history"';
    const path = configFile(`{ "devices": {
      "data": { ${FILE}, "id": 3, "recovery": "reissue" },
      "zoned": { "target": { "kind": "zoned", ${state} } },
      "code": { ${module} },
      "fork": { "target": { "kind": "overlay", ${overlay} } }
    } }`);
    const folder = join(path, '..');
    expect(await loadConfig(path)).toEqual([
      {
        name: 'data',
        target: { kind: 'file', path: join(folder, 'a.img') },
        id: 3,
        recovery: 'reissue',
      },
      {
        name: 'zoned',
        target: { kind: 'zoned', path: join(folder, 'z.img'), state: '/var/z', zoneSize: '64KiB' },
      },
      {
        name: 'code',
        target: {
          kind: 'module',
          url: `file://${folder}/disk.js`,
          workers: 1,
          data: { path: 'x' },
        },
      },
      {
        name: 'fork',
        target: {
          kind: 'overlay',
          base: { kind: 'null', size: 4096 },
          path: join(folder, 'l.layer'),
          history: join(folder, 'history'),
        },
      },
    ]);
  });

  test('of a module may have handlers, which stay as they are, and is read anew', async () => {
    const path = configFile(
      `const target = { size: 4096, count: (globalThis.ublkLoads = (globalThis.ublkLoads ?? 0) + 1),
        read() { return this; } };
      delete target.count;
      export default { devices: { ['d' + globalThis.ublkLoads]: { target } } };`,
      'ublk.mjs',
    );
    const [first] = await loadConfig(path);
    const [second] = await loadConfig(path);
    expect([first?.name, second?.name]).toEqual(['d1', 'd2']);
    const { target } = first as unknown as { target: { read(): unknown } };
    expect(target.read()).toBe(target);
  });
});

test('JSON is read as JSON.parse() reads it', () => {
  const text = '\uFEFF{"a":[1,-2.5e3,true,false,null,"x\\u00e9\\n",[],{}],"__proto__":{"b":1}}';
  const { value, lines } = readJson(text);
  expect(JSON.stringify(value)).toBe(JSON.stringify(JSON.parse(text.slice(1))));
  expect(lines.get('["a",2]')).toBe(1);
});

describe('TOML', () => {
  const text = `\uFEFF# disks
[devices.data]
target = { kind = "striped", targets = [
  { kind = "file", path = "a.img" },
  { kind = "file", path = "b.img" } ] } # two
recovery = 'reissue'
queue.nomerges = 2
[[a.b]]
[[a.b]]
c = [1_000, 0x10, 2.5, true]
[a."b c".__proto__]
d = 1
`;

  test('is read with the line of each key', () => {
    const { value, lines } = readToml(text);
    expect(JSON.parse(JSON.stringify(value))).toEqual({
      devices: {
        data: {
          target: {
            kind: 'striped',
            targets: [
              { kind: 'file', path: 'a.img' },
              { kind: 'file', path: 'b.img' },
            ],
          },
          recovery: 'reissue',
          queue: { nomerges: 2 },
        },
      },
      a: JSON.parse('{"b":[{},{"c":[1000,16,2.5,true]}],"b c":{"__proto__":{"d":1}}}') as unknown,
    });
    expect(Object.hasOwn(Object.prototype, 'd')).toBe(false);
    const at = (...path: (string | number)[]) => lines.get(JSON.stringify(path));
    const targets = ['devices', 'data', 'target', 'targets'];
    expect(at('devices')).toBe(2);
    expect(at(...targets, 1, 'path')).toBe(5);
    expect(at('devices', 'data', 'queue', 'nomerges')).toBe(7);
    expect([at('a', 'b', 0), at('a', 'b', 1), at('a', 'b', 1, 'c', 3)]).toEqual([8, 9, 10]);
  });

  test('is a configuration, with paths from its own folder', async () => {
    const path = configFile(text.slice(0, text.indexOf('[[a')), 'ublk.toml');
    const [device, ...none] = await loadConfig(path);
    expect(none).toEqual([]);
    expect(device).toMatchObject({
      name: 'data',
      recovery: 'reissue',
      queue: { nomerges: 2 },
      target: { targets: [{ path: join(path, '../a.img') }, { path: join(path, '../b.img') }] },
    });
  });
});
