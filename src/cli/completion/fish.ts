import type { Offer, Place, Word } from './grammar.ts';

/** The script for fish. */
export function fishScript(places: readonly Place[]): string {
  return `# fish completion for ublk: ublk completion fish | source
set -g __ublk_places ${places.map(({ path }) => `'${path}'`).join(' ')}
function __ublk_at
  set -l at ublk
  for word in (commandline -opc)[2..]
    contains -- "$at $word" $__ublk_places; and set at "$at $word"
  end
  test "$at" = "$argv"
end
function __ublk_devices
  string replace -rf '^/dev/ublkc(\\d+)$' '$1' /dev/ublkc*
end
complete -c ublk -f
${places.flatMap(linesOf).join('\n')}
`;
}

function linesOf({ path, commands, options, values, argument }: Place): string[] {
  const here = `complete -c ublk -n '__ublk_at ${path}'`;
  const described = ({ about }: Word) => `-d '${about.replaceAll("'", String.raw`\'`)}'`;
  const names = commands.map((one) => `${here} -a ${one.word} ${described(one)}`);
  const flags = options.map((one) => {
    const value = values.get(one.word);
    const takes = value === undefined ? '' : ` -r${offered(value)}`;
    return `${here} -l ${one.word.slice(2)}${takes} ${described(one)}`;
  });
  const rest = offered(argument);
  return [...names, ...flags, ...(rest === '' ? [] : [`${here}${rest}`])];
}

function offered(offer: Offer): string {
  if (offer === 'files') return ' -F';
  if (offer === 'devices') return " -f -a '(__ublk_devices)'";
  return offer.length === 0 ? '' : ` -f -a '${offer.join(' ')}'`;
}
