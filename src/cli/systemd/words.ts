/** A word of a command line in a unit file: nothing in the word is replaced or split. */
export function quoteWord(word: string): string {
  const plain = word.replaceAll('%', '%%').replaceAll('$', '$$$$');
  return /^[\w%$@/.:,+=-]+$/.test(plain)
    ? plain
    : `"${plain.replaceAll(/["\\]/g, String.raw`\$&`)}"`;
}

/** A path in a setting that holds a list of paths. */
export function quotePath(path: string): string {
  const plain = path.replaceAll('%', '%%');
  return /^[\w%@/.:,+=-]+$/.test(plain)
    ? plain
    : `"${plain.replaceAll(/["\\]/g, String.raw`\$&`)}"`;
}

/** An absolute path as a part of the name of a unit, as `systemd-escape --path` writes it. */
export function escapePath(path: string): string {
  const bytes = Buffer.from(path.split('/').filter(Boolean).join('/'));
  const escape = (byte: number, at: number): string => {
    const char = String.fromCharCode(byte);
    if (char === '/') return '-';
    if (/[A-Za-z0-9:_]/.test(char) || (char === '.' && at > 0)) return char;
    return String.raw`\x${byte.toString(16).padStart(2, '0')}`;
  };
  return [...bytes].map(escape).join('') || '-';
}
