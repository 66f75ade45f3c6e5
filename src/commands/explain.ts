/**
 * explain: what an address means, by the prefixes that are given or those of the daemon that runs; or what the
 * programs of the fast path do.
 */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type Flags, loadConfig } from '../config/config.ts';
import { ask } from '../daemon/control.ts';
import type { Listings, ProgramName } from '../dataplane/fast-path/listing.ts';
import { errorCode, InlayError } from '../errors.ts';
import { type Prefix, parseAddress, parsePrefix } from '../mesh/address.ts';
import { explain } from '../mesh/explain.ts';
import { Mapping, type prefixesOf } from '../mesh/mapping.ts';
import { addJson, addSetting, addSettings, example, flagsOf, print, runDirOf } from './options.ts';
import { table } from './table.ts';

const PROGRAMS: readonly ProgramName[] = ['outbound', 'inbound'];

interface Options {
  config?: string;
  json?: boolean;
  runDir?: string;
  container?: number;
  program?: ProgramName | true;
}

export function addExplainCommand(program: Command): void {
  const command = program
    .command('explain')
    .description('show which VM and container an overlay address is, or which overlay addresses a VM has')
    .argument('[ADDRESS]');
  addSetting(addJson(addSettings(command, ['overlay', 'underlay', 'local', 'encapsulation'])), 'run-dir');
  command.option(
    '--container <NUMBER>',
    "with a VM's address: the overlay address of its container with this number",
    wholeNumber,
  );
  command.addOption(
    new Option(
      '--program [NAME]',
      'instead of an address: the programs of the fast path, as this VM loads them',
    ).choices(PROGRAMS),
  );
  example(
    command,
    'explain 10.16.32.91',
    'explain 10.16.32.91 --overlay 10.0.0.0/8 --underlay 192.168.0.0/16',
    'explain 192.168.16.32 --container 90 --overlay 10.0.0.0/8 --underlay 192.168.0.0/16',
    'explain --program outbound',
  );
  command.action(async (text: string | undefined, options: Options) => {
    if (options.program) {
      if (text !== undefined) throw new InlayError('ERR_USAGE', 'explain: expected an address or --program, not both');
      return await explainPrograms(options);
    }
    if (text === undefined) throw new InlayError('ERR_USAGE', 'explain: expected an address, or --program');
    const address = parseAddress(text);
    if (!address) throw new InlayError('ERR_USAGE', `address "${text}": expected an IPv4 address such as 10.16.32.91`);
    const found = explain(await mappingsOf(flagsOf({ ...options }), options), address, options.container);
    print(options, found, () => table(Object.entries(found)));
  });
}

/** As a daemon has them that runs, or as one would that is configured so. */
async function explainPrograms(options: Options): Promise<void> {
  const flags = flagsOf({ ...options });
  const isGiven = flags.overlay ?? flags.underlay ?? options.config;
  const found = isGiven
    ? await (await import('../daemon/dry-run.ts')).programsOf(loadConfig(flags, options.config))
    : await ask<Partial<Listings>>(runDirOf(options), 'programs').catch((error) => {
        throw errorCode(error) === 'ERR_NOT_RUNNING' ? nobodyKnows(error) : error;
      });
  const names = options.program === true ? PROGRAMS : PROGRAMS.filter((name) => name === options.program);
  const shown = Object.fromEntries(names.map((name) => [name, found[name] ?? []]));
  if (Object.values(shown).every((lines) => lines.length === 0))
    throw new InlayError('ERR_FAILED', 'this configuration has no fast path', {
      hint: 'it needs encapsulation gre or gre-udp, and fast-path auto or on',
    });
  print(options, shown, () =>
    Object.entries(shown)
      .map(([name, lines]) => [`${name}:`, ...lines].join('\n'))
      .join('\n\n'),
  );
}

/** The mappings that the flags or the file give; without them, those of the daemon that runs. */
async function mappingsOf(flags: Flags, options: Options): Promise<readonly Mapping[]> {
  if (flags.overlay ?? flags.underlay ?? options.config) return loadConfig(flags, options.config).mappings;
  const pairs = await ask<ReturnType<typeof prefixesOf>[]>(runDirOf(options), 'mappings').catch((error) => {
    throw errorCode(error) === 'ERR_NOT_RUNNING' ? nobodyKnows(error) : error;
  });
  return pairs.map((pair) => new Mapping(parsePrefix(pair.overlay) as Prefix, parsePrefix(pair.underlay) as Prefix));
}

function nobodyKnows(cause: Error): InlayError {
  return new InlayError(
    'ERR_CONFIG',
    `no prefixes are given, and no daemon runs that could tell them: ${cause.message}`,
    {
      hint: '--overlay 10.0.0.0/8 --underlay 192.168.0.0/16; or --config FILE; or --run-dir of a daemon that runs',
      cause,
    },
  );
}

function wholeNumber(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('expected a whole number.');
  return Number(text);
}
