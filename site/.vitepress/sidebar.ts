import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import type { DefaultTheme } from 'vitepress';

/** A title and the pages below it, as paths of the checkout without `.md`. */
export type Section = readonly [title: string, pages: readonly string[]];

/** All pages but README, which is the first, and the API reference. */
export const SECTIONS: readonly Section[] = [
  [
    'Using ublk',
    [
      'devices',
      'targets',
      'nbd',
      'rbd',
      'http',
      'recipes',
      'forks',
      'buffers',
      'handlers',
      'export',
      'recovery',
      'service',
      'watching',
      'testing',
    ].map(guide),
  ],
  [
    'In production',
    ['production', 'systemd', 'performance', 'security', 'troubleshooting'].map(guide),
  ],
  [
    'Reference',
    [...['kernels', 'typescript', 'glossary'].map(guide), 'examples/README', 'CHANGELOG'],
  ],
  [
    'Working on ublk',
    [
      'CONTRIBUTING',
      'docs/architecture',
      'docs/kernel-traps',
      'docs/benchmarks/README',
      'bench/README',
      'vm/README',
    ],
  ],
];

/** The site's sidebar: the sections, then the API reference as typedoc lists its pages. */
export function sidebar(root: string): DefaultTheme.SidebarItem[] {
  const sections = SECTIONS.map(([text, pages]) => ({
    text,
    items: pages.map((page) => {
      return { text: titleOf(readFileSync(join(root, `${page}.md`), 'utf8')), link: `/${page}` };
    }),
  }));
  const api = readFileSync(join(root, 'site/api/typedoc-sidebar.json'), 'utf8');
  return [...sections, { text: 'API reference', items: JSON.parse(api) }];
}

/** The first heading of a page. */
export function titleOf(page: string): string {
  const title = /^# (.+)$/m.exec(page)?.[1];
  if (title === undefined)
    throw new Error(`a page has no heading of level 1: ${page.slice(0, 80)}`);
  return title;
}

function guide(name: string): string {
  return `docs/guides/${name}`;
}
