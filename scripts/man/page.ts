import type { Argument, Command, Option } from 'commander';

import { escape, paragraph, section, subsection, term } from './roff.ts';

/** Groups of options that every target of `ublk add` has: described once. */
const COMMON = ['Server options:', 'Device options:'];

const STATUS: readonly (readonly [code: string, meaning: string])[] = [
  ['0', 'The command succeeded.'],
  ['1', 'The command failed; standard error says why, with a hint.'],
  ['2', 'An argument or an option is wrong.'],
];

const FILES: readonly (readonly [path: string, meaning: string])[] = [
  ['/dev/ublk-control', 'The driver, for control commands.'],
  ['/dev/ublkbN', 'The block device with the id N.'],
  ['/dev/ublkcN', 'The character device through which a server serves device N.'],
  ['/dev/ublk/by-name/NAME', 'The block device of that name, with the rules of udev for names.'],
  ['/run/ublk', 'Records and layouts of devices with recovery; sockets of ublk share.'],
  ['/run/ublk-servers', 'The server and the backing store of each device, for ublk list.'],
];

const ENVIRONMENT: readonly (readonly [name: string, meaning: string])[] = [
  ['NODE_DEBUG=ublk', 'Report on standard error what the command does.'],
  ['NO_COLOR', 'Print without colours.'],
];

/** The manual page of the whole command, as roff with the macros of man(7). */
export function manPage(program: Command, date: string): string {
  const version = program.version() ?? '';
  const name = `ublk \\- ${escape(lower(program.description()))}`;
  return [
    `.TH UBLK 1 "${date}" "ublk ${version}" "User Commands"`,
    section('NAME', name),
    section(
      'SYNOPSIS',
      visible(program)
        .map((command) => `.B ${usage(command)}`)
        .join('\n.br\n'),
    ),
    section('DESCRIPTION', escape(program.description())),
    ...targetsFirst(program).map((command) => describe(command)),
    section('COMMON OPTIONS OF TARGETS', ...COMMON.map((group) => commonGroup(program, group))),
    section('EXIT STATUS', ...STATUS.map(([code, meaning]) => term(code, meaning))),
    section('FILES', ...FILES.map(([path, meaning]) => term(path, meaning))),
    section('ENVIRONMENT', ...ENVIRONMENT.map(([key, meaning]) => term(key, meaning))),
  ]
    .join('\n')
    .concat('\n');
}

/** All commands that do something, each after the group that it is in. */
function targetsFirst(command: Command): Command[] {
  return visible(command).flatMap((below) =>
    visible(below).length > 0 ? targetsFirst(below) : [below],
  );
}

function describe(command: Command): string {
  const name = fullName(command);
  const own = options(command).filter((option) => !COMMON.includes(option.helpGroupHeading ?? ''));
  return section(
    name.toUpperCase(),
    `.B ${usage(command)}`,
    paragraph(command.description()),
    ...command.registeredArguments.map(argument),
    ...own.map(optionTerm),
    ...example(command),
  );
}

function commonGroup(program: Command, group: string): string {
  const file = program.commands
    .find((command) => command.name() === 'add')
    ?.commands.find((target) => target.name() === 'file');
  const members = file ? options(file).filter((one) => one.helpGroupHeading === group) : [];
  return subsection(group.replace(/:$/, ''), ...members.map(optionTerm));
}

function fullName(command: Command): string {
  return command.parent ? `${fullName(command.parent)} ${command.name()}` : command.name();
}

function usage(command: Command): string {
  const words = command.registeredArguments.map((one) => {
    const name = one.variadic ? `${one.name()}...` : one.name();
    return one.required ? name : `[${name}]`;
  });
  const below = visible(command).length > 0 ? ['target'] : [];
  return escape([fullName(command), ...below, '[options]', ...words].join(' '));
}

function argument(one: Argument): string {
  return term(one.name(), withChoices(one.description, one.argChoices));
}

function optionTerm({ flags, description, argChoices }: Option): string {
  return term(flags, withChoices(description, argChoices));
}

function withChoices(text: string, choices: readonly string[] | undefined): string {
  return choices ? `${text} (choices: ${choices.join(', ')})` : text;
}

function options(command: Command): Option[] {
  return command
    .createHelp()
    .visibleOptions(command)
    .filter((option) => option.long !== '--help');
}

function visible(command: Command): Command[] {
  return command
    .createHelp()
    .visibleCommands(command)
    .filter((below) => below.name() !== 'help');
}

/** The examples at the end of a command's help. */
function example(command: Command): string[] {
  let text = '';
  command.configureOutput({ writeOut: (part) => (text += part) }).outputHelp();
  const lines = [...text.matchAll(/^ {2}\$ (.+)$/gm)].map(([, line]) => escape(line!));
  return lines.length === 0 ? [] : ['.PP\nExample:', `.PP\n.EX\n${lines.join('\n')}\n.EE`];
}

function lower(text: string): string {
  return `${text.slice(0, 1).toLowerCase()}${text.slice(1)}`.replace(/\.$/, '');
}
