import type { Command } from 'commander';

import { example, PART, seconds, wholeNumber } from './arguments.ts';
import type { DelayFlags, PartsFlags, StripedFlags, ZonedFlags } from './commands/add-layers.ts';
import type { HttpFlags } from './commands/add-http.ts';
import type { NbdFlags } from './commands/add-nbd.ts';
import type { Qcow2Flags } from './commands/add-qcow2.ts';
import type { RbdFlags } from './commands/add-rbd.ts';
import type { ErrorFlags } from './commands/add.ts';

/** The subcommands of `ublk add` beyond plain files: layers, servers, zones. */
export function addLayers(add: Command, options: (command: Command) => Command): void {
  partOptions(options(add.command('striped')))
    .description('Serve chunks spread over several targets in turn.')
    .argument('<target...>', PART)
    .option('--chunk <size>', 'bytes on each target before the next target (default: 64KiB)')
    .addHelpText('after', example('ublk add striped a.img b.img --chunk 128KiB'))
    .action(async (parts: string[], flags: StripedFlags) => {
      await (await import('./commands/add-layers.ts')).addStriped(parts, flags);
    });
  partOptions(options(add.command('linear')))
    .description('Serve several targets in sequence.')
    .argument('<target...>', PART)
    .addHelpText('after', example('ublk add linear a.img error:1MiB b.img'))
    .action(async (parts: string[], flags: PartsFlags) => {
      await (await import('./commands/add-layers.ts')).addLinear(parts, flags);
    });
  partOptions(options(add.command('delay')))
    .description('Serve a target with delays, for tests.')
    .argument('<target>', PART)
    .option('--read-us <n>', 'delay of reads, in microseconds', wholeNumber)
    .option('--write-us <n>', 'delay of writes and discards', wholeNumber)
    .option('--flush-us <n>', 'delay of flushes (default: as writes)', wholeNumber)
    .addHelpText('after', example('ublk add delay null:1GiB --read-us 5000'))
    .action(async (part: string, flags: DelayFlags) => {
      await (await import('./commands/add-layers.ts')).addDelay(part, flags);
    });
  options(add.command('qcow2'))
    .description('Serve a qcow2 image with its backing files, for reading only.')
    .argument('<image>', 'the image')
    .option('--direct', 'insist on reading past the page cache')
    .option('--no-direct', 'go through the page cache')
    .option('--no-lock', 'serve images that other programs have; none may write to them')
    .option('--block-size <bytes>', 'logical block size: 512, 1024, 2048 or 4096', wholeNumber)
    .addHelpText('after', example('ublk add qcow2 debian.qcow2'))
    .action(async (image: string, flags: Qcow2Flags) => {
      await (await import('./commands/add-qcow2.ts')).addQcow2(image, flags);
    });
  options(add.command('nbd'))
    .description('Serve an export of an NBD server.')
    .argument('<uri>', 'nbd://HOST[:PORT]/EXPORT, nbds://… or nbd+unix:///EXPORT?socket=/PATH')
    .option('--read-only', 'refuse writes; needed for an export that refuses writes')
    .option('--block-size <bytes>', 'logical block size: 512, 1024, 2048 or 4096', wholeNumber)
    .option('--connect-timeout <seconds>', 'limit of a connection (default: 10)', seconds)
    .option(
      '--reconnect-timeout <seconds>',
      'how long requests wait for a lost connection (default: 60)',
      wholeNumber,
    )
    .option(
      '--answer-timeout <seconds>',
      'how long a connection may stay without answers (default: 300)',
      seconds,
    )
    .option('--tls-certificates <folder>', 'with ca-cert.pem, client-cert.pem, client-key.pem')
    .addHelpText('after', example('ublk add nbd nbd://storage.example/vm1'))
    .action(async (uri: string, flags: NbdFlags) => {
      await (await import('./commands/add-nbd.ts')).addNbd(uri, flags);
    });
  options(add.command('rbd'))
    .description('Serve an image of Ceph RBD, through librbd.')
    .argument('<image>', '[POOL/[NAMESPACE/]]IMAGE[@SNAPSHOT] (default pool: rbd)')
    .option('--user <name>', 'the Ceph user, without client. (default: admin)')
    .option('--cluster <name>', 'the cluster, for the names of files (default: ceph)')
    .option('--conf <file>', "Ceph's configuration (default: /etc/ceph/CLUSTER.conf)")
    .option('--keyring <file>', "the file with the user's key")
    .option('--no-lock', 'hand the exclusive lock of the image over to clients that ask')
    .option('--read-only', 'refuse writes; needs no permission to write')
    .option('--block-size <bytes>', 'logical block size: 512, 1024, 2048 or 4096', wholeNumber)
    .option('--connect-timeout <seconds>', 'limit of opening (default: 60)', seconds)
    .option(
      '--request-timeout <seconds>',
      "how long requests wait for the cluster (default: Ceph's limit, or 300)",
      seconds,
    )
    .addHelpText('after', example('ublk add rbd vms/vm1 --user ublk'))
    .action(async (image: string, flags: RbdFlags) => {
      await (await import('./commands/add-rbd.ts')).addRbd(image, flags);
    });
  options(add.command('http'))
    .description('Serve a file on a web server, for reading only.')
    .argument('<url>', 'http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH')
    .option('--parallel <n>', 'requests to the server at a time (default: 8)', wholeNumber)
    .option('--authorities <file>', "certificates to trust (default: Mozilla's list)")
    .option('--block-size <bytes>', 'logical block size: 512, 1024, 2048 or 4096', wholeNumber)
    .option('--answer-timeout <seconds>', 'limit of an answer (default: 30)', seconds)
    .option(
      '--retry-timeout <seconds>',
      'how long reads are tried again (default: 60)',
      wholeNumber,
    )
    .addHelpText('after', example('ublk add http https://images.example/debian.img'))
    .action(async (url: string, flags: HttpFlags) => {
      await (await import('./commands/add-http.ts')).addHttp(url, flags);
    });
  options(add.command('error'))
    .description('Serve a device that fails every request, for tests.')
    .requiredOption('--size <size>', 'its size, for example 1GiB')
    .addHelpText('after', example('ublk add error --size 1GiB'))
    .action(async (flags: ErrorFlags) => {
      await (await import('./commands/add-layers.ts')).addError(flags);
    });
  options(add.command('zoned'))
    .description('Serve a zoned device from a file or from memory.')
    .argument('[image]', 'the file or block device (default: memory)')
    .requiredOption('--zone-size <size>', 'the size of a zone, for example 64MiB')
    .option('--zone-capacity <size>', 'writable part of a zone (default: all)')
    .option('--size <size>', 'size of the device (default: size of the image)')
    .option('--state <file>', "file for the zones' state (default: IMAGE.zones)")
    .option('--create-state', 'make the state file for an image that is not empty')
    .option('--conventional <n>', 'conventional zones at the beginning', wholeNumber)
    .option('--max-open <n>', 'largest number of open zones (default: all)', wholeNumber)
    .option('--max-active <n>', 'largest number of active zones (default: all)', wholeNumber)
    .addHelpText('after', example('ublk add zoned --size 4GiB --zone-size 64MiB'))
    .action(async (image: string | undefined, flags: ZonedFlags) => {
      await (await import('./commands/add-layers.ts')).addZoned(image, flags);
    });
}

/** The options of targets that are made of other targets. */
function partOptions(command: Command): Command {
  return command
    .option('--no-lock', 'serve files although another server does')
    .option('--read-only', 'refuse writes, and open files for reading only')
    .option('--block-size <bytes>', 'logical block size: 512, 1024, 2048 or 4096', wholeNumber);
}
