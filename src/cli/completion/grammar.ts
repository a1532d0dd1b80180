import type { Argument, Command, Option } from 'commander';

/** A shell's offers for an argument or for the value of an option. */
export type Offer = 'files' | 'devices' | readonly string[];

/** A command or an option, with its description. */
export interface Word {
  readonly word: string;
  readonly about: string;
}

/** A shell's offers after the words of a command. */
export interface Place {
  /** The command's words, without arguments: `ublk add file`. */
  readonly path: string;
  readonly commands: readonly Word[];
  readonly options: readonly Word[];
  /** The offers for the values of options with a value. */
  readonly values: ReadonlyMap<string, Offer>;
  /** The offers for the command's arguments. */
  readonly argument: Offer;
}

/** The options of a new device: `ublk recover` takes all other options. */
const DEVICE_OPTIONS = 'Device options:';

/** The offers for a placeholder such as `<file>`. */
const OFFERS: Readonly<Record<string, Offer>> = {
  base: 'files',
  config: 'files',
  file: 'files',
  folder: 'files',
  image: 'files',
  layer: 'files',
  target: 'files',
  id: 'devices',
};

/** Every place of a program, the program itself first. */
export function placesOf(program: Command): Place[] {
  const recover = program.commands.find((command) => command.name() === 'recover');
  const add = program.commands.find((command) => command.name() === 'add');
  const all = placesBelow(program, '');
  if (!recover || !add) return all;
  // `ublk recover ID` takes the targets of `ublk add`; commander parses the targets in a separate command.
  const targets = add.commands.map((target) => placeOf(target, 'ublk recover', isOfServer));
  const commands = placeOf(add, 'ublk').commands;
  const withTargets = (place: Place) =>
    place.path === 'ublk recover' ? { ...place, commands } : place;
  return [...all.map(withTargets), ...targets];
}

function placesBelow(command: Command, before: string): Place[] {
  const place = placeOf(command, before);
  return [place, ...visible(command).flatMap((below) => placesBelow(below, place.path))];
}

function placeOf(
  command: Command,
  before: string,
  which: (option: Option) => boolean = () => true,
): Place {
  const path = `${before} ${command.name()}`.trim();
  const options = command.createHelp().visibleOptions(command).filter(which);
  const words = options.flatMap(({ long, description }) =>
    long == null ? [] : [{ word: long, about: description }],
  );
  const valued = options.filter(({ required, optional }) => required || optional);
  const values = valued.map((option) => [option.long ?? '', offerOf(option)] as const);
  const first = command.registeredArguments[0];
  const commands = visible(command).map((below) => {
    return { word: below.name(), about: below.description() };
  });
  return {
    path,
    commands,
    options: words,
    values: new Map(values),
    argument: first === undefined ? [] : argumentOffer(first),
  };
}

function visible(command: Command): Command[] {
  return command
    .createHelp()
    .visibleCommands(command)
    .filter((below) => below.name() !== 'help');
}

function isOfServer(option: Option): boolean {
  return option.helpGroupHeading !== DEVICE_OPTIONS;
}

function offerOf({ argChoices, flags }: Option): Offer {
  return argChoices ?? OFFERS[/<(\w+)/.exec(flags)?.[1] ?? ''] ?? [];
}

function argumentOffer(argument: Argument): Offer {
  return argument.argChoices ?? OFFERS[argument.name()] ?? [];
}
