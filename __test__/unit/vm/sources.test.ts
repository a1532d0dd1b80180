import { expect, test } from 'vitest';
import { retargetSources } from '../../../scripts/debian-sources.ts';

const archive = `Types: deb deb-src
# a comment in the middle
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`;
const security = `Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
`;
const vendor = `Types: deb
URIs: http://vendor.example/apt
Suites: bookworm
Components: main
`;

function sources(...stanzas: string[]) {
  return [{ path: '/etc/apt/sources.list.d/all.sources', text: stanzas.join('\n') }];
}

test('a stanza keeps its mirror and keyring and offers only the suite asked for', () => {
  expect(retargetSources(sources(archive), 'bookworm', 'sid')).toEqual({
    extension: '.sources',
    text: `Types: deb
URIs: http://mirror.example/debian
Suites: sid
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`,
  });
});

test('the archive is found among security updates and other vendors, in any order', () => {
  const files = sources(security, vendor, archive);
  expect(retargetSources(files, 'bookworm', 'sid')?.text).toContain('mirror.example/debian\n');
});

test('a keyring written into the stanza survives', () => {
  const inline = archive.replace(/Signed-By:.*\n/, 'Signed-By:\n KEY LINE 1\n .\n KEY LINE 2\n');
  const text = retargetSources(sources(inline), 'bookworm', 'sid')?.text;
  expect(text).toContain('Signed-By:\n KEY LINE 1\n .\n KEY LINE 2\n');
});

test('suites that go on over several lines are all replaced', () => {
  const long = archive.replace('bookworm bookworm-updates', 'bookworm\n bookworm-updates');
  expect(retargetSources(sources(long), 'bookworm', 'sid')?.text).not.toContain('bookworm');
});

test('a stanza that is switched off is not used', () => {
  expect(retargetSources(sources(`Enabled: no\n${archive}`), 'bookworm', 'sid')).toBeUndefined();
});

test('the one-line format keeps its options', () => {
  const text = `# deb http://off.example/debian bookworm main
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main contrib # note
`;
  const files = [{ path: '/etc/apt/sources.list', text }];
  expect(retargetSources(files, 'bookworm', 'trixie-backports')).toEqual({
    extension: '.list',
    text: 'deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian trixie-backports main\n',
  });
});
