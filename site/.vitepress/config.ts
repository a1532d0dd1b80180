// The documentation site: README, guides and reference pages of this checkout, and the API reference
// that typedoc has written to site/api. `npm run docs` builds the site in .cache/site.

import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { defineConfig } from 'vitepress';

import { writeLlmsTxt } from './llms.ts';
import { sidebar } from './sidebar.ts';

const ROOT = join(import.meta.dirname, '../..');
const { version, description } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));

export default defineConfig({
  title: 'ublk',
  description,
  srcDir: ROOT,
  outDir: join(ROOT, '.cache/site'),
  cacheDir: join(ROOT, '.cache/vitepress'),
  srcExclude: ['{target,crates,native,npm,__test__,scripts,src,bin}/**'],
  rewrites: { 'README.md': 'index.md', 'site/api/:page*': 'api/:page*' },
  // Links lead to files, so that they work in the repository, in the package and from a folder.
  cleanUrls: false,
  ignoreDeadLinks: false,
  markdown: { languageAlias: { console: 'shellsession' } },
  vite: { publicDir: false, build: { chunkSizeWarningLimit: 1024 } },
  themeConfig: {
    outline: [2, 3],
    search: { provider: 'local' },
    nav: [
      { text: `Version ${version}`, link: '/CHANGELOG' },
      { text: 'API', link: '/api/' },
    ],
    sidebar: sidebar(ROOT),
  },
  buildEnd(site) {
    // Guides link to the examples' sources.
    cpSync(join(ROOT, 'examples'), join(site.outDir, 'examples'), { recursive: true });
    writeLlmsTxt(site, description);
  },
});
