import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, onTestFinished, test } from 'vitest';

import { UblkError } from '../../src/errors.ts';
import { checkConfig } from '../../src/service/config.ts';
import { readJson } from '../../src/service/json.ts';
import { loadConfig } from '../../src/service/load.ts';

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

/** A configuration of one device, `data`, whose lines 4 and on are `lines`; its target is in line 4. */
function device(...lines: string[]): string {
  return ['{', '  "devices": {', '    "data": {', ...lines, '    }', '  }', '}'].join('\n');
}

const FILE = '"target": { "kind": "file", "path": "a.img" }';
const LAYER = `"target": { "kind": "overlay", "path": "a.layer", "base": { "kind": "null", "size": "1GiB" } }`;
const NULL = '"target": { "kind": "null", "size": "1GiB" }';

/** What is wrong, the text, the line, the key (where there is one), and what the error says. */
const WRONG: readonly [string, string, number, string, RegExp][] = [
  // Not JSON.
  ['an empty file', '', 1, '', /the file is empty/],
  ['blanks alone', '\n\n', 3, '', /the file is empty/],
  ['no end', '{\n  "devices": {', 2, 'devices', /the file ends before a '}'/],
  ['no end of an array', '{\n"devices": [\n1', 3, 'devices', /the file ends before a '\]'/],
  ['two values', '{}\n{}', 2, '', /'{' follows the end/],
  ['a comma too many', device(`${NULL},`), 4, 'devices.data', /a comma is before '}'/],
  [
    'a comma missing',
    device(NULL, '"id": 3'),
    5,
    'devices.data',
    /a comma is missing before '"id"'/,
  ],
  ['a comment', device('// the disk', NULL), 4, 'devices.data', /'\/\/ the disk' is a comment/],
  ['a comment in YAML', device('# the disk', NULL), 4, 'devices.data', /'#' is not JSON/],
  ['a key without quotes', device('target: 1'), 4, 'devices.data', /'target' is not JSON/],
  ['single quotes', device("'target': 1"), 4, 'devices.data', /''target'' is not JSON/],
  [
    'a value without quotes',
    device('"buffers": auto,', NULL),
    4,
    'devices.data.buffers',
    /'auto' is not JSON/,
  ],
  [
    'a string without an end',
    device('"buffers": "auto,', NULL),
    4,
    'devices.data.buffers',
    /a string has no end/,
  ],
  ['a wrong escape', device('"buffers": "\\q",', NULL), 4, 'devices.data.buffers', /wrong escape/],
  ['a wrong number', device('"depth": 01,', NULL), 4, 'devices.data.depth', /'01' is no number/],
  [
    'a number in hex',
    device('"depth": 0x10,', NULL),
    4,
    'devices.data.depth',
    /'0x10' is no number/,
  ],
  [
    'no colon',
    device('"depth" 64,', NULL),
    4,
    'devices.data.depth',
    /a colon is missing before '64'/,
  ],
  [
    'no value',
    device('"depth": ,', NULL),
    4,
    'devices.data.depth',
    /a value is missing before ','/,
  ],
  [
    'a key twice',
    device(NULL, `,${NULL}`),
    5,
    'devices.data.target',
    /'target' is there twice; the first is in line 4/,
  ],
  [
    'a device twice',
    '{"devices": {\n"a": {},\n"b": {},\n"a": {} } }',
    4,
    'devices.a',
    /the first is in line 2/,
  ],
  ['undefined', device('"id": undefined,', NULL), 4, 'devices.data.id', /'undefined' is not JSON/],
  ['a comma too many in an array', '{"a": [1\n,\n]}', 2, 'a[1]', /a comma is before ']'/],
  ['a long comment', '{\n/* the\ndisk */}', 2, '', /'\/\* the' is a comment/],
  ['a number without an end', device('"depth": 1.,', NULL), 4, 'devices.data.depth', /'1\.' is no/],
  ['a tab in a string', device('"name": "\t",', NULL), 4, 'devices.data.name', /control character/],
  ['a number as a key', device('1: 2,', NULL), 4, 'devices.data', /'1' is no key/],
  [
    'an end after a key',
    '{\n"devices"',
    2,
    'devices',
    /a colon is missing before the end of the file/,
  ],
  ['too many brackets', '['.repeat(99), 1, '', /too many brackets/],
  // Another shape.
  ['an array', '[]', 1, '', /the configuration must be an object, not an array/],
  ['a number', '7', 1, '', /the configuration must be an object, not 7/],
  ['no devices', '{}', 1, '', /there is no 'devices'/],
  ['a misspelt key', '{\n"device": {}\n}', 2, 'device', /the configuration has no 'device'/],
  ['one key too many', '{\n"devices": {"a": {}},\n"pools": 2\n}', 3, 'pools', /has no 'pools'/],
  [
    'devices as an array',
    '{\n"devices": []\n}',
    2,
    'devices',
    /devices must be an object, not an array/,
  ],
  ['no device', '{\n"devices": {}\n}', 2, 'devices', /names no device/],
  [
    'a device that is null',
    '{"devices": {\n"a": null } }',
    2,
    'devices.a',
    /must be an object, not null/,
  ],
  ['a name with a slash', '{"devices": {\n"../a": {} } }', 2, 'devices.../a', /name is "..\/a"/],
  ['an empty name', '{"devices": {\n"": {} } }', 2, 'devices.', /name is ""/],
  // A wrong device.
  ['no target', device('"id": 3'), 3, 'devices.data', /has no target/],
  ['a misspelt option', device(NULL, ', "dept": 3'), 5, 'devices.data.dept', /has no 'dept'/],
  ['a name as an option', device(NULL, ', "name": "a"'), 5, 'devices.data.name', /has no 'name'/],
  ['a pool', device(NULL, ', "pool": {}'), 5, 'devices.data.pool', /has no 'pool'/],
  [
    'a depth that is text',
    device(NULL, ', "depth": "64"'),
    5,
    'devices.data.depth',
    /depth is "64"; it must be/,
  ],
  ['a depth of 0', device(NULL, ', "depth": 0'), 5, 'devices.data.depth', /depth is 0/],
  ['a negative id', device(NULL, ', "id": -1'), 5, 'devices.data.id', /id is -1/],
  [
    'a recovery that is none',
    device(NULL, ', "recovery": "yes"'),
    5,
    'devices.data.recovery',
    /recovery is "yes"/,
  ],
  [
    'an ambiguous size',
    device(NULL, ', "maxIoBytes": "1MB"'),
    5,
    'devices.data.maxIoBytes',
    /two ways/,
  ],
  [
    'a wrong buffer mode',
    device(NULL, ', "buffers": "zerocopy"'),
    5,
    'devices.data.buffers',
    /buffers is "zerocopy"/,
  ],
  [
    'a wrong limit',
    device(NULL, ', "limits": {', '"maxSegments": 0 }'),
    6,
    'devices.data.limits.maxSegments',
    /maxSegments is 0/,
  ],
  [
    'a wrong setting',
    device(NULL, ', "queue": {', '"nomerge": 1 }'),
    6,
    'devices.data.queue.nomerge',
    /queue has no 'nomerge'/,
  ],
  [
    'options that exclude each other',
    device(NULL, ', "recovery": "fail", "unprivileged": true'),
    5,
    'devices.data.unprivileged',
    /unprivileged and recovery exclude/,
  ],
  // A wrong target.
  [
    'a target that is text',
    device('"target": "a.img"'),
    4,
    'devices.data.target',
    /target is no target/,
  ],
  [
    'a kind that is none',
    device('"target": {', '"kind": "fiel" }'),
    5,
    'devices.data.target.kind',
    /no target of kind 'fiel'/,
  ],
  ['no kind', device('"target": { "path": "a" }'), 4, 'devices.data.target', /target is no target/],
  [
    'a handler in JSON',
    device('"target": { "size": 512, "read": 1 }'),
    4,
    'devices.data.target.read',
    /read must be a function/,
  ],
  [
    'no path',
    device('"target": { "kind": "file" }'),
    4,
    'devices.data.target',
    /path is undefined/,
  ],
  [
    'an empty path',
    device('"target": { "kind": "file",', '"path": "" }'),
    5,
    'devices.data.target.path',
    /path is ""/,
  ],
  [
    'a misspelt key of a target',
    device('"target": { "kind": "file", "path": "a",', '"readonly": true }'),
    5,
    'devices.data.target.readonly',
    /has no 'readonly'/,
  ],
  [
    'a wrong chunk',
    device(
      '"target": { "kind": "striped",',
      '"chunk": "5k",',
      '"targets": [{ "kind": "null", "size": 512 }] }',
    ),
    5,
    'devices.data.target.chunk',
    /chunk is 5k/,
  ],
  [
    'a wrong stripe',
    device(
      '"target": { "kind": "striped", "targets": [',
      '{ "kind": "null", "size": 512 },',
      '{ "kind": "null",',
      '"size": "lots" } ] }',
    ),
    7,
    'devices.data.target.targets[1].size',
    /size 'lots' is no size/,
  ],
  [
    'no stripes',
    device('"target": { "kind": "striped",', '"targets": [] }'),
    5,
    'devices.data.target.targets',
    /has 0 targets/,
  ],
  [
    'a wrong checksum',
    device('"target": { "kind": "null", "size": 512,', '"integrity": {', '"checksum": "md5" } }'),
    6,
    'devices.data.target.integrity.checksum',
    /checksum is "md5"/,
  ],
  [
    'a module without URL',
    device('"target": { "kind": "module",', '"workers": 2 }'),
    4,
    'devices.data.target',
    /url is undefined/,
  ],
  [
    'a module with too many workers',
    device('"target": { "kind": "module", "url": "./a.js",', '"workers": 999 }'),
    5,
    'devices.data.target.workers',
    /workers is 999/,
  ],
  // Two devices.
  [
    'an id twice',
    `{"devices": {\n"a": { ${NULL}, "id": 1 },\n"b": { ${NULL},\n"id": 1 } } }`,
    4,
    'devices.b.id',
    /id is 1, as that of device 'a'/,
  ],
  [
    'a layer twice',
    `{"devices": {\n"a": { ${LAYER} },\n"b": { ${LAYER} } } }`,
    3,
    'devices.b.target',
    /served twice, first by device 'a'/,
  ],
  [
    'a base that cannot be',
    `{"devices": { "a": {\n"target": { "kind": "overlay", "path": "/a.layer",\n"base": { "kind": "file" } } } } }`,
    3,
    'devices.a.target.base',
    /path/,
  ],
  [
    'a file twice',
    `{"devices": {\n"a": { ${FILE} },\n"b": { ${FILE} } } }`,
    3,
    'devices.b.target',
    /served twice, first by device 'a'/,
  ],
];

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
