import type { Offer, Place } from './grammar.ts';

/** The script for bash. */
export function bashScript(places: readonly Place[]): string {
  return `# bash completion for ublk: source <(ublk completion bash)
_ublk_offer() {
  local IFS=$' \\n' ids=(/dev/ublkc[0-9]*)
  case $1 in
    files) IFS=$'\\n'; compopt -o filenames 2>/dev/null; COMPREPLY+=($(compgen -f -- "$2")) ;;
    devices) [[ -e $ids ]] && COMPREPLY+=($(compgen -W "\${ids[*]#/dev/ublkc}" -- "$2")) ;;
    *) COMPREPLY+=($(compgen -W "$1" -- "$2")) ;;
  esac
}
_ublk() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} at=ublk i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$at \${COMP_WORDS[i]}" in
${paths(places)}) at="$at \${COMP_WORDS[i]}" ;;
    esac
  done
  case "$at:$prev" in
${values(places)}
  esac
  case "$at:$cur" in
${options(places)}
${words(places)}
  esac
}
complete -F _ublk ublk
`;
}

function paths(places: readonly Place[]): string {
  return places.map(({ path }) => `      '${path}'`).join(' |\\\n');
}

function values(places: readonly Place[]): string {
  const lines = places.flatMap(({ path, values }) =>
    [...values].map(([option, offer]) => {
      return `    '${path}:${option}') _ublk_offer '${inWords(offer)}' "$cur"; return ;;`;
    }),
  );
  return lines.join('\n');
}

function options(places: readonly Place[]): string {
  const lines = places.map(({ path, options }) => {
    const all = options.map(({ word }) => word).join(' ');
    return `    '${path}':-*) _ublk_offer '${all}' "$cur" ;;`;
  });
  return lines.join('\n');
}

function words(places: readonly Place[]): string {
  const lines = places.map(({ path, commands, argument }) => {
    const names = commands.map(({ word }) => word).join(' ');
    const offers = [names, inWords(argument)].filter((offer) => offer !== '');
    const calls = offers.map((offer) => `_ublk_offer '${offer}' "$cur"`);
    return `    '${path}':*) ${calls.join('; ')} ;;`;
  });
  return lines.join('\n');
}

function inWords(offer: Offer): string {
  return typeof offer === 'string' ? offer : offer.join(' ');
}
