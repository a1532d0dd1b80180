import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, onTestFinished, test } from 'vitest';

import { UblkError } from '../../src/errors.ts';
import { checkConfig } from '../../src/service/config.ts';
import { readJson } from '../../src/service/json.ts';
import { loadConfig } from '../../src/service/load.ts';
import { FILE, WRONG } from './wrong-configs.ts';

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
  test('comes in fifty kinds and more', () => {
    expect(WRONG.length).toBeGreaterThanOrEqual(50);
  });

  test.each(WRONG)(
    'with %s is one error with line, key and remedy',
    async (_, text, line, key, says) => {
      const path = configFile(text);
      const { code, message, hint } = await errorOf(path);
      expect(code).toBe('ERR_UBLK_INVALID_ARGUMENT');
      const named = key === '' ? '' : `${key}: `;
      expect(message.slice(0, `${path}:${line}: ${named}`.length)).toBe(
        `${path}:${line}: ${named}`,
      );
      expect(message).toMatch(says);
      expect(hint).toMatch(/\w+\W+\w+/);
      expect(message).not.toContain('\n');
    },
  );

  test.each([
    ['ublk.toml', 'x', /'\.toml' is no kind of configuration/, /JSON/],
    ['ublk', 'x', /'no extension' is no kind/, /JSON/],
    ['ublk.mjs', 'export const devices = {};', /no default export/, /export default/],

    ['ublk.mjs', '\n\nthrow new Error("no disk");', /line 3: no disk/, /correct the module/],
    ['ublk.mjs', 'import "nowhere-at-all"', /Cannot find package/, /installed\?/],
    [
      'ublk.mjs',
      'export default { devices: { a: {} } }',
      /devices\.a: device 'a' has no target/,
      /"kind"/,
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
