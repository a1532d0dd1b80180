import type { Command } from 'commander';

import { bashScript } from '../completion/bash.ts';
import { fishScript } from '../completion/fish.ts';
import { placesOf } from '../completion/grammar.ts';
import { zshScript } from '../completion/zsh.ts';

/** A shell with completion for `ublk`. */
export type Shell = 'bash' | 'zsh' | 'fish';

const SCRIPTS = { bash: bashScript, zsh: zshScript, fish: fishScript };

/** `ublk completion SHELL` */
export function completion(program: Command, shell: Shell): void {
  process.stdout.write(SCRIPTS[shell](placesOf(program)));
}
