import { expect, test } from 'vitest';
import { KERNEL, parseAddress, parseCounts } from '../../../bench/profile/counts.ts';
import { byArea } from '../../../bench/profile/areas.ts';
import { flameGraph } from '../../../bench/profile/flame.ts';
import { sideOf, withSide } from '../../../bench/profile/sides.ts';
import {
  AddressSpace,
  KernelSymbols,
  parseAddr2line,
  parseMaps,
} from '../../../bench/profile/symbols.ts';
import { fold, foldedLines, growth, printTree, toTree } from '../../../bench/profile/tree.ts';

const kernel = new KernelSymbols([
  'ffffffff81000200 T second',
  'ffffffff81000100 t first',
  'ffffffff81000180 D data',
]);
const maps = parseMaps([
  '555500001000-555500002000 r-xp 00001000 00:00 1    /bin/server',
  '555500000000-555500001000 r--p 00000000 00:00 1    /bin/server',
  '7f0000000000-7f0000001000 r-xp 00000000 00:00 2    /lib/libc.so.6',
]);

test('every instruction of a block ran as often as the block', () => {
  const counts = parseCounts('0 3 1000 2 4\n0 5 1002 4\n1 7 1000 2\n\n');
  expect(counts).toEqual([
    new Map([
      [0x1000, 3],
      [0x1002, 8],
    ]),
    new Map([[0x1000, 7]]),
  ]);
});

test("the kernel's addresses stay exact, and above those of programs", () => {
  expect(parseAddress('ffffffff81000001') - parseAddress('ffffffff81000000')).toBe(1);
  expect(parseAddress('ffffffff81000000')).toBeGreaterThan(KERNEL);
  expect(parseAddress('7fffffffffff')).toBeLessThan(KERNEL);
});

test('a kernel address belongs to the function that begins last before it', () => {
  expect(kernel.nameOf(parseAddress('ffffffff810001ff'))).toBe('first');
  expect(kernel.nameOf(parseAddress('ffffffff81000200'))).toBe('second');
  expect(kernel.nameOf(parseAddress('ffffffff81000000'))).toBe('unknown');
});

test("an address is the kernel's, the server's, its library's or the client's", () => {
  const space = new AddressSpace(kernel, maps, '/bin/server');
  const owner = (hex: string) => space.stackOf(parseAddress(hex));
  expect(owner('ffffffff81000150')).toEqual(['kernel', 'first']);
  expect(owner('555500001010')).toEqual(['server', 'unknown']);
  expect(owner('7f0000000010')).toEqual(['server', 'libc.so.6']);
  expect(owner('401000')).toEqual(['client']);
});

test('inlined functions stack up from the outermost to the innermost', () => {
  const text = [
    '0x0000000000001000',
    'core::ptr::read',
    '/rust/ptr.rs:1',
    'ublk_core::engine::Engine<D,T>::pass::h0123456789abcdef',
    '/src/engine.rs:9',
    '0x0000000000001004',
    'main',
    '??:?',
  ].join('\n');
  expect(parseAddr2line(text)).toEqual([['engine::Engine::pass', 'core::ptr::read'], ['main']]);
});

test('what the longer run has more is divided by its I/Os', () => {
  const stackOf = (place: number) => (place < 10 ? ['server', 'f'] : ['client']);
  const first = fold(new Map([[1, 100], [20, 7]]), stackOf); // prettier-ignore
  const second = fold(new Map([[1, 150], [2, 150], [30, 7]]), stackOf); // prettier-ignore
  const folded = growth(first, second, 10);
  expect([...folded]).toEqual([
    ['server;f', 20],
    ['client', 0],
  ]);
  expect(foldedLines(folded)).toEqual(['server;f 2000']);
});

test('the tree shows the greatest parts first and leaves out the small ones', () => {
  const folded = new Map([
    ['a;b', 1],
    ['a;c', 20],
    ['d', 30],
  ]);
  const calls = new Map([['a;c', 2]]);
  expect(printTree(toTree(folded, calls), 10)).toEqual([
    '      51.0           all',
    '      30.0             d',
    '      21.0             a',
    '      20.0     2.00      c',
  ]);
});

test('a function is called as often as its first instruction runs', () => {
  const space = new AddressSpace(kernel, maps, '/bin/server');
  expect(space.isEntry(parseAddress('ffffffff81000100'))).toBe(true);
  expect(space.isEntry(parseAddress('ffffffff81000104'))).toBe(false);
  expect(space.isEntry(parseAddress('555500001000'))).toBe(false);
});

test('a processor works for the side whose code it runs, or for both', () => {
  const stackOf = (place: number) => [place < 10 ? 'client' : place < 20 ? 'server' : 'kernel'];
  const side = (client: number, server: number) =>
    sideOf(new Map([[1, client], [11, server], [21, 9999]]), stackOf); // prettier-ignore
  expect([side(100, 0), side(5, 95), side(40, 60)]).toEqual(['client', 'server', undefined]);
  expect(withSide(['kernel', 'f'], 'client')).toEqual(['kernel beside the client', 'f']);
  expect(withSide(['server', 'f'], 'client')).toEqual(['server', 'f']);
});

test('the kernel is divided by what its functions are for', () => {
  const instructions = new Map([
    ['client', 3],
    ['server;f;g', 2],
    ['kernel;ublk_queue_rqs', 10],
    ['kernel beside the client;io_submit_sqes', 20],
    ['kernel;io_schedule', 30],
    ['kernel;unheard_of', 1],
  ]);
  expect(byArea(instructions)).toEqual({
    'sleep and wake-up': 30,
    io_uring: 20,
    'ublk driver': 10,
    "client's own code": 3,
    "server's own code": 2,
    'rest of the kernel': 1,
  });
});

test('a flame graph shows the functions of one side, as wide as they cost', () => {
  const folded = new Map([
    ['server;turn', 10],
    ['server;turn;{closure#0};take', 90],
    ['kernel;unseen', 500],
  ]);
  const svg = flameGraph(folded, 'server', 'The title');
  for (const shown of ['The title', 'server 100', 'turn 100', 'take 90']) {
    expect(svg).toContain(shown);
  }
  expect(svg).not.toContain('unseen');
  expect(svg).not.toContain('closure');
});
