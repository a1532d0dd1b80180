// The machine's own package sources, turned to another suite of the same archive. Pure functions.

/** A file of /etc/apt that names package sources. */
export interface SourceFile {
  path: string;
  text: string;
}

/** One source that offers the Debian archive, ready to be written to a file with this extension. */
export interface ArchiveSource {
  extension: '.sources' | '.list';
  text: string;
}

interface Candidate extends ArchiveSource {
  score: number;
}

/**
 * The best source of the Debian archive among `files`, offering `suite` (component main) in place
 * of the suites it offers. `codename` is the machine's own release: the entry that offers it is the
 * archive; entries for security updates or for other vendors name other suites, or score lower.
 */
export function retargetSources(
  files: readonly SourceFile[],
  codename: string,
  suite: string,
): ArchiveSource | undefined {
  const candidates = files.flatMap(({ path, text }) =>
    path.endsWith('.sources')
      ? fromStanzas(text, codename, suite)
      : fromLines(text, codename, suite),
  );
  const [best] = candidates.sort((a, b) => b.score - a.score);
  return best && { extension: best.extension, text: best.text };
}

/** deb822: stanzas parted by blank lines, `Field: value`, continued on indented lines. */
function fromStanzas(text: string, codename: string, suite: string): Candidate[] {
  return text
    .replace(/^#.*\n?/gm, '')
    .split(/\n\s*\n/)
    .flatMap((stanza) => {
      const field = (name: string) =>
        new RegExp(`^${name}:((?:.*)(?:\\n[ \\t].*)*)`, 'im').exec(stanza)?.[1]?.trim() ?? '';
      const words = (name: string) => field(name).split(/\s+/);
      if (/^(no|false|off|0)$/i.test(field('Enabled'))) return [];
      if (!words('Types').includes('deb')) return [];
      if (!offers(words('Suites'), words('Components'), codename)) return [];
      const replaced = stanza
        .trim()
        .replace(/^Suites:.*(\n[ \t].*)*/im, `Suites: ${suite}`)
        .replace(/^Components:.*(\n[ \t].*)*/im, 'Components: main')
        .replace(/^Types:.*(\n[ \t].*)*/im, 'Types: deb');
      const score = rate(words('URIs')[0] ?? '', field('Signed-By'));
      return [{ extension: '.sources' as const, text: `${replaced}\n`, score }];
    });
}

/** One line each: `deb [options] uri suite component…`. */
function fromLines(text: string, codename: string, suite: string): Candidate[] {
  return text.split('\n').flatMap((line) => {
    const match = /^\s*deb\s+(\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+([^#]*)/.exec(line);
    if (!match) return [];
    const [, options = '', uri = '', offered = '', components = ''] = match;
    if (!offers([offered], components.trim().split(/\s+/), codename)) return [];
    const text = `deb ${options}${uri} ${suite} main\n`;
    return [{ extension: '.list' as const, text, score: rate(uri, options) }];
  });
}

function offers(suites: string[], components: string[], codename: string): boolean {
  const names = [codename, 'stable', 'testing', 'unstable', 'sid'];
  return components.includes('main') && suites.some((suite) => names.includes(suite));
}

/** Other vendors offer a `main` for Debian's releases too; path and keyring tell them apart. */
function rate(uri: string, signedBy: string): number {
  return (/\/debian\/?$/.test(uri) ? 2 : 0) + (/debian-archive/.test(signedBy) ? 1 : 0);
}
