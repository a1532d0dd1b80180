/** Text as roff takes it: what begins a request or an escape stands for itself. */
export function escape(text: string): string {
  return text
    .replaceAll('\\', String.raw`\e`)
    .replaceAll('-', String.raw`\-`)
    .replaceAll(/^([.'])/gm, String.raw`\&$1`);
}

/** A section with its lines. */
export function section(title: string, ...lines: readonly string[]): string {
  return [`.SH "${escape(title)}"`, ...lines].join('\n');
}

/** A section within a section. */
export function subsection(title: string, ...lines: readonly string[]): string {
  return [`.SS "${escape(title)}"`, ...lines].join('\n');
}

/** A paragraph. */
export function paragraph(text: string): string {
  return `.PP\n${escape(text)}`;
}

/** A term in bold, with the text that explains the term. */
export function term(name: string, text: string): string {
  return `.TP\n.B "${escape(name)}"\n${escape(text)}`;
}
