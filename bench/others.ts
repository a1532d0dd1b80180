// Servers of somebody else's, to measure beside ours: built programs, which the package cannot
// bring along.

import { copyFile, mkdir, readFile, readdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { quote } from '../vm/job.ts';
import { type Other, QUEUE_DEPTH } from './subjects.ts';

/** The guest has a /tmp of its own, so programs are copied to where it sees them. */
const PLACE = fileURLToPath(new URL('../target/bench/others', import.meta.url));

type Recipe = (program: string) => Other[];

/** How the programs are started that are known by name. */
const RECIPES: Readonly<Record<string, Recipe>> = { kublk };

/**
 * Reads `--others`: a directory with built programs, or a JSON list of {@link Other}. Rejects when
 * there is none that is known.
 */
export async function readOthers(path: string, place = PLACE): Promise<Other[]> {
  if (!(await stat(path)).isDirectory()) return JSON.parse(await readFile(path, 'utf8')) as Other[];
  const found = (await readdir(path)).filter((name) => Object.hasOwn(RECIPES, name));
  if (found.length === 0) {
    const known = Object.keys(RECIPES).join(', ');
    throw new Error(`${path} has no server that is known by name (${known}); others: a JSON list`);
  }
  await mkdir(place, { recursive: true });
  const all = found.map(async (name) => {
    const program = join(place, name);
    await copyFile(resolve(path, name), program);
    return RECIPES[name]!(program);
  });
  return (await Promise.all(all)).flat();
}

/** The server of the kernel's own selftests: tools/testing/selftests/ublk, built with `make`. */
function kublk(program: string): Other[] {
  const modes = {
    copy: '',
    register: '-z',
    auto: '--auto_zc',
    'auto batch': '--auto_zc -b',
  };
  const add = `${quote(program)} add -q 1 -d ${QUEUE_DEPTH} -n 0 --quiet`;
  return (['file', 'null'] as const).flatMap((target) =>
    Object.entries(modes).map(([mode, flags]) => ({
      name: `kublk ${mode}`,
      target,
      device: '/dev/ublkb0',
      start: `${add} ${flags} ${target === 'file' ? '-t loop "$backing"' : '-t null'}`,
      stop: `${quote(program)} del -n 0`,
      program,
    })),
  );
}
