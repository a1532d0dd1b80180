import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

import type { SiteConfig } from 'vitepress';

import { SECTIONS, titleOf, type Section } from './sidebar.ts';

/**
 * Writes `llms.txt`, a list of the site's pages for language models, and each page's Markdown beside
 * the page.
 */
export function writeLlmsTxt(site: SiteConfig, description: string): void {
  for (const page of site.pages) {
    const copy = join(site.outDir, site.rewrites.map[page] ?? page);
    mkdirSync(dirname(copy), { recursive: true });
    copyFileSync(join(site.srcDir, page), copy);
  }
  const entry = (page: string): string => {
    const text = readFileSync(join(site.srcDir, `${page}.md`), 'utf8');
    return `- [${titleOf(text)}](/${page}.md)${contentsOf(text)}`;
  };
  const start: Section = ['Start', ['README']];
  const lists = [start, ...SECTIONS].map(([title, pages]) => {
    return `## ${title}\n\n${pages.map(entry).join('\n')}`;
  });
  const api =
    '## API reference\n\n- [All modules](/api/index.md): every function, option, default, unit and error';
  const text = [`# ublk`, `> ${description}`, ...lists, api].join('\n\n');
  writeFileSync(join(site.outDir, 'llms.txt'), `${text.replace('/README.md', '/index.md')}\n`);
}

/** The headings of a page, after a colon. */
function contentsOf(page: string): string {
  const headings = [...page.matchAll(/^## (.+)$/gm)].map(([, heading]) => heading);
  return headings.length === 0 ? '' : `: ${headings.join(', ')}`;
}
