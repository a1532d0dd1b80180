// Writes man/ublk.1 from the definitions of the command; `npm pack` runs this.

import { mkdirSync, writeFileSync } from 'node:fs';

import { manPage } from './man/page.ts';
import { createProgram } from '../src/cli/program.ts';

const folder = new URL('../man/', import.meta.url);
mkdirSync(folder, { recursive: true });
writeFileSync(
  new URL('ublk.1', folder),
  manPage(createProgram(), new Date().toISOString().slice(0, 10)),
);
