// Serves an image, watches what its clients do, and draws it when it is stopped: where on the disk
// (left to right), when (top to bottom), how much (the darker the more), reads blue, writes red.
//
//   npx tsx examples/heat-map.ts disk.img heat.svg

import { writeFile } from 'node:fs/promises';
import { type Completion, createDevice, targets } from 'ublk';

const COLUMNS = 128;
const ROWS = 64;
const CELL = 8;

interface Cell {
  read: number;
  write: number;
}

/** Draws reads and writes of a disk of `size` bytes as SVG. */
export function heatMap(trace: readonly Completion[], size: number): string {
  const requests = trace.filter(({ op }) => op === 'read' || op === 'write');
  const times = requests.map(({ time }) => time);
  const [start, end] = [Math.min(...times), Math.max(...times)];
  const cells = new Map<number, Cell>();
  for (const { op, offset, length, time } of requests) {
    const row = Math.min(ROWS - 1, Math.floor(((time - start) / (end - start || 1)) * ROWS));
    const first = Math.floor((offset / size) * COLUMNS);
    const last = Math.floor(((offset + length - 1) / size) * COLUMNS);
    for (let column = first; column <= last; column++) {
      const cell = cells.get(row * COLUMNS + column) ?? { read: 0, write: 0 };
      cell[op as keyof Cell] += length / (last - first + 1);
      cells.set(row * COLUMNS + column, cell);
    }
  }
  const most = Math.max(...[...cells.values()].map(({ read, write }) => Math.max(read, write)));
  const rects = [...cells].flatMap(([place, cell]) => {
    const x = (place % COLUMNS) * CELL;
    const y = Math.floor(place / COLUMNS) * CELL;
    return (['read', 'write'] as const).map((op) => rect(x, y, op, cell[op] / most));
  });
  return svg(rects.join(''), `${((end - start) / 1e9).toFixed(1)} s`);
}

/** Reads fill the left half of a cell, writes the right one. */
function rect(x: number, y: number, op: 'read' | 'write', heat: number): string {
  if (heat === 0) return '';
  const half = CELL / 2;
  const left = op === 'read' ? x : x + half;
  // The square root: a little is to be seen beside a lot.
  const opacity = Math.sqrt(heat).toFixed(2);
  const color = op === 'read' ? 'royalblue' : 'crimson';
  return `<rect x="${left}" y="${y}" width="${half}" height="${CELL}" fill="${color}" fill-opacity="${opacity}"/>\n`;
}

function svg(body: string, duration: string): string {
  const [width, height] = [COLUMNS * CELL, ROWS * CELL];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-24 -24 ${width + 32} ${height + 32}" font-family="sans-serif" font-size="12">
<rect width="${width}" height="${height}" fill="whitesmoke"/>
<text x="0" y="-8">offset → <tspan fill="royalblue">read</tspan> <tspan fill="crimson">write</tspan></text>
<text transform="translate(-8 ${height}) rotate(-90)">${duration} ← time</text>
${body}</svg>
`;
}

if (process.argv[1] === import.meta.filename) {
  const [image = 'disk.img', output = 'heat.svg'] = process.argv.slice(2);
  const device = await createDevice({ target: targets.file(image) });
  for (const name of ['SIGINT', 'SIGTERM']) process.once(name, () => void device.close());
  console.log(`${device.path}: Ctrl-C draws ${output}`);

  const trace: Completion[] = [];
  let lost = 0;
  for await (const { completions, dropped } of device.completions()) {
    trace.push(...completions);
    lost += dropped;
  }
  await writeFile(output, heatMap(trace, device.size));
  console.log(`${output}: ${trace.length} requests${lost > 0 ? `, ${lost} more not seen` : ''}`);
}
