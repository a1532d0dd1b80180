import type { Offer, Place, Word } from './grammar.ts';

/** The script for zsh. */
export function zshScript(places: readonly Place[]): string {
  return `#compdef ublk
# zsh completion for ublk: source <(ublk completion zsh)
_ublk_devices() {
  local -a ids=(/dev/ublkc<->(N:t))
  compadd -- \${ids#ublkc}
}
_ublk() {
  local at=ublk word
  local -a offers
  for word in \${words[2,CURRENT-1]}; do
    case "$at $word" in
      (${places.map(({ path }) => `'${path}'`).join('|')}) at="$at $word" ;;
    esac
  done
  case "$at:\${words[CURRENT-1]}" in
${places.flatMap(values).join('\n')}
  esac
  case "$at:\${words[CURRENT]}" in
${places.map(options).join('\n')}
${places.map(words).join('\n')}
  esac
}
if [ "$funcstack[1]" = _ublk ]; then _ublk "$@"; else compdef _ublk ublk; fi
`;
}

function values({ path, values }: Place): string[] {
  return [...values].map(
    ([option, offer]) => `    ('${path}:${option}') ${offered(offer)}; return ;;`,
  );
}

function options({ path, options }: Place): string {
  return `    ('${path}':-*) ${described(options)}; _describe -o option offers ;;`;
}

function words({ path, commands, argument }: Place): string {
  const rest = argument.length === 0 ? [] : [offered(argument)];
  const names = commands.length === 0 ? [] : [described(commands), '_describe command offers'];
  return `    ('${path}':*) ${[...names, ...rest].join('; ')} ;;`;
}

function offered(offer: Offer): string {
  if (offer === 'files') return '_files';
  return offer === 'devices' ? '_ublk_devices' : `compadd -- ${offer.join(' ')}`;
}

function described(words: readonly Word[]): string {
  const items = words.map(({ word, about }) => {
    return `'${`${word}:${about}`.replaceAll("'", String.raw`'\''`)}'`;
  });
  return `offers=(${items.join(' ')})`;
}
