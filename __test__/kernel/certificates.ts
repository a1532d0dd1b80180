import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';

import { execa } from 'execa';

import { temporaryFolder } from './image.ts';

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

/** An authority that signs certificates for the tests of TLS. */
export interface Authority {
  /** A folder with `ca-cert.pem`, and `ROLE-cert.pem` and `ROLE-key.pem` for each role. */
  folder(...roles: readonly ('client' | 'server')[]): Promise<string>;
}

/** Makes an authority; its servers are `localhost` and 127.0.0.1. */
export async function makeAuthority(): Promise<Authority> {
  const home = temporaryFolder();
  const [certificate, key] = [join(home, 'ca-cert.pem'), join(home, 'ca-key.pem')];
  const name = `/CN=authority of ${basename(home)}`;
  const request = ['req', '-x509', ...KEY, '-days', '30', '-subj', name];
  await execa('openssl', [...request, '-keyout', key, '-out', certificate]);
  let count = 0;
  const folder = async (...roles: readonly ('client' | 'server')[]): Promise<string> => {
    count += 1;
    const made = join(home, String(count));
    await mkdir(made);
    await execa('cp', [certificate, made]);
    for (const role of roles) await sign(made, role, [certificate, key]);
    return made;
  };
  return { folder };
}

async function sign(
  folder: string,
  role: string,
  [certificate, key]: readonly [string, string],
): Promise<void> {
  const own = (name: string): string => join(folder, `${role}-${name}.pem`);
  const subject = ['-subj', `/CN=${role}`, '-keyout', own('key'), '-out', own('request')];
  await execa('openssl', ['req', ...KEY, ...subject]);
  const names = role === 'server' ? 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' : '';
  const words = `basicConstraints=CA:FALSE\nextendedKeyUsage=${role}Auth\n${names}`;
  await writeFile(own('words'), words);
  const signed = ['-in', own('request'), '-out', own('cert'), '-extfile', own('words')];
  const by = ['-CA', certificate, '-CAkey', key, '-CAcreateserial', '-days', '30'];
  await execa('openssl', ['x509', '-req', ...signed, ...by]);
  await chmod(own('key'), 0o600);
}
