import type { WrongConfig } from './wrong-configs.ts';

/** A configuration of one device, `data`, whose lines 2 and on are `lines`. */
function device(...lines: string[]): string {
  return ['[devices.data]', ...lines].join('\n');
}

const FILE = 'target = { kind = "file", path = "a.img" }';
const NULL = 'target = { kind = "null", size = "1GiB" }';
const TARGET = 'devices.data.target';

/** What is wrong, the text, the line, the key (where there is one), and what the error says. */
export const WRONG_TOML: readonly WrongConfig[] = [
  // Not TOML.
  ['an empty file', '', 1, '', /there is no 'devices'/],
  ['a comment alone', '\n# nothing\n', 1, '', /there is no 'devices'/],
  ['JSON', '{\n"devices": {} }', 1, '', /'{' is no TOML/],
  ['YAML', 'devices:\n  data:', 1, 'devices', /'devices:' is no TOML/],
  ['a table without an end', '[devices.data', 1, 'devices.data', /a table's name has no end/],
  ['a table and a key', `[devices.data] ${NULL}`, 1, 'devices.data', /second statement/],
  ['a bracket too many', '[devices.data]]', 1, 'devices.data', /second statement/],
  ['a table twice', `${device(NULL)}\n${device()}`, 3, 'devices.data', /the first is in line 1/],
  ['a key twice', device(NULL, NULL), 3, TARGET, /'target' is there twice; .* line 2/],
  ['a key and a table', `${device(NULL)}\n[${TARGET}]`, 3, TARGET, /first is in line 2/],
  ['a comment of JavaScript', device('// disk', NULL), 2, 'devices.data', /no TOML/, /with #/],
  ['a colon', device('depth: 3'), 2, 'devices.data.depth', /'depth: 3' is no TOML/],
  ['no equals sign', device('depth 3'), 2, 'devices.data.depth', /no '='/],
  ['no value', device('depth ='), 2, 'devices.data.depth', /value is missing/],
  ['no key', device('= 3'), 2, 'devices.data', /'= 3' is no TOML/],
  ['a dot too many', device('queue. = 3'), 2, 'devices.data.queue', /ends with a dot/],
  ['a value without quotes', device('buffers = auto'), 2, 'devices.data.buffers', /no TOML/],
  ['a string without an end', device('buffers = "auto'), 2, 'devices.data.buffers', /no end/],
  ['a text without an end', device('buffers = """', 'a', 'b'), 4, 'devices.data.buffers', /no end/],
  ['a wrong escape', device('buffers = "\\q"'), 2, 'devices.data.buffers', /wrong escape/],
  ['a control character', device('buffers = "\u0001"'), 2, 'devices.data.buffers', /control/],
  ['a leading zero', device('depth = 01'), 2, 'devices.data.depth', /leading zero/],
  ['a wrong underscore', device('depth = 1_'), 2, 'devices.data.depth', /misplaced _/],
  ['a number without an end', device('depth = 1.'), 2, 'devices.data.depth', /no TOML/],
  ['a number too great', device('depth = 9007199254740993'), 2, 'devices.data.depth', /beyond/],
  ['two values', device('depth = 1 2'), 2, 'devices.data.depth', /second statement/],
  ['no comma', device('affinity = [', '1', '2 ]'), 4, 'devices.data.affinity', /comma is missing/],
  [
    'an array without an end',
    device('affinity = [', '1,'),
    3,
    'devices.data.affinity',
    /value is missing/,
    /ends with \]/,
  ],
  ['a comma too many', device('target = { kind = "a", }'), 2, TARGET, /a comma is before/],
  ['braces in two lines', device('target = {', 'kind = "a" }'), 3, TARGET, /more than one line/],
  ['braces without an end', device('target = { kind = "a"'), 2, TARGET, /without '}'/],
  ['a date that is none', device('depth = 2020-13-01'), 2, 'devices.data.depth', /a date/],
  [
    'too many brackets',
    `a = ${'['.repeat(99)}${']'.repeat(99)}`,
    1,
    `a${'[0]'.repeat(64)}`,
    /too many/,
  ],
  // Another shape.
  ['no devices', '[service]', 1, 'service', /the configuration has no 'service'/],
  ['a misspelt key', '[device.a]', 1, 'device', /the configuration has no 'device'/],
  ['devices as an array', '[[devices]]', 1, 'devices', /must be an object, not an array/],
  ['no device', '\n[devices]', 2, 'devices', /names no device/],
  ['a device that is a number', '[devices]\na = 3', 2, 'devices.a', /must be an object, not 3/],
  ['a name with a slash', '[devices."../a"]', 1, 'devices.../a', /name is "..\/a"/],
  ['a device named __proto__', '[devices.__proto__]\nb = 1', 1, 'devices.__proto__', /name is "__/],
  // A wrong device.
  ['no target', device('id = 3'), 1, 'devices.data', /has no target/],
  ['a misspelt option', device(NULL, 'dept = 3'), 3, 'devices.data.dept', /has no 'dept'/],
  ['a name as an option', device(NULL, 'name = "a"'), 3, 'devices.data.name', /has no 'name'/],
  ['a depth that is text', device(NULL, 'depth = "64"'), 3, 'devices.data.depth', /it must be/],
  ['a depth of 0', device('depth = 0', NULL), 2, 'devices.data.depth', /depth is 0/],
  ['a depth of inf', device('depth = inf', NULL), 2, 'devices.data.depth', /depth is/],
  ['a date as a depth', device('depth = 2020-01-01', NULL), 2, 'devices.data.depth', /must be/],
  ['a wrong recovery', device(NULL, 'recovery = "yes"'), 3, 'devices.data.recovery', /"yes"/],
  ['an ambiguous size', device(NULL, 'maxIoBytes = "1MB"'), 3, 'devices.data.maxIoBytes', /two/],
  ['a wrong buffer mode', device(NULL, 'buffers = "zero"'), 3, 'devices.data.buffers', /"zero"/],
  [
    'a wrong limit in a table',
    `${device(NULL)}\n[devices.data.limits]\n\nmaxSegments = 0`,
    5,
    'devices.data.limits.maxSegments',
    /maxSegments is 0/,
  ],
  [
    'a wrong setting in a dotted key',
    device(NULL, 'queue.nomerge = 1'),
    3,
    'devices.data.queue.nomerge',
    /queue has no 'nomerge'/,
  ],
  [
    'options that exclude each other',
    device(NULL, 'recovery = "fail"', 'unprivileged = true'),
    4,
    'devices.data.unprivileged',
    /unprivileged and recovery exclude/,
  ],
  // A wrong target.
  ['a target that is text', device('target = "a.img"'), 2, TARGET, /target is no target/],
  ['a wrong kind', `[${TARGET}]\nkind = "fiel"`, 2, `${TARGET}.kind`, /kind 'fiel'/],
  ['no kind', `[${TARGET}]\npath = "a"`, 1, TARGET, /target is no target/],
  ['no path', `[${TARGET}]\nkind = "file"`, 1, TARGET, /path is undefined/],
  ['an empty path', `[${TARGET}]\nkind = "file"\npath = ""`, 3, `${TARGET}.path`, /path is ""/],
  [
    'a misspelt key of a target',
    `[${TARGET}]\nkind = "file"\npath = "a"\nreadonly = true`,
    4,
    `${TARGET}.readonly`,
    /has no 'readonly'/,
  ],
  [
    'a wrong stripe',
    `[${TARGET}]\nkind = "striped"\n[[${TARGET}.targets]]\nkind = "null"\nsize = 512
[[${TARGET}.targets]]\nkind = "null"\nsize = "lots"`,
    8,
    `${TARGET}.targets[1].size`,
    /size 'lots' is no size/,
  ],
  [
    'no stripes',
    `[${TARGET}]\nkind = "striped"\ntargets = []`,
    3,
    `${TARGET}.targets`,
    /has 0 targets/,
  ],
  [
    'a wrong checksum',
    `[${TARGET}]\nkind = "null"\nsize = 512\n[${TARGET}.integrity]\nchecksum = "md5"`,
    5,
    `${TARGET}.integrity.checksum`,
    /checksum is "md5"/,
  ],
  ['a module without URL', `[${TARGET}]\nkind = "module"`, 1, TARGET, /url is undefined/],
  [
    'an address for scrapes without a port',
    `[devices.a]\n${NULL}\n[metrics]\naddress = "::1"`,
    3,
    'metrics',
    /an address with a port/,
    /127\.0\.0\.1:9760/,
  ],
  // Two devices.
  [
    'an id twice',
    `[devices.a]\n${NULL}\nid = 1\n[devices.b]\n${NULL}\nid = 1`,
    6,
    'devices.b.id',
    /id is 1, as that of device 'a'/,
  ],
  [
    'a file twice',
    `[devices.a]\n${FILE}\n[devices.b]\n${FILE}`,
    4,
    'devices.b.target',
    /served twice, first by device 'a'/,
  ],
];
