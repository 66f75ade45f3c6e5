/** explain: what an address means: by the prefixes that are given, or those of the daemon that runs. */
import { type Command, InvalidArgumentError } from 'commander';
import { type Flags, loadConfig } from '../config/config.ts';
import { ask } from '../daemon/control.ts';
import { errorCode, InlayError } from '../errors.ts';
import { type Prefix, parseAddress, parsePrefix } from '../mesh/address.ts';
import { explain } from '../mesh/explain.ts';
import { Mapping, type prefixesOf } from '../mesh/mapping.ts';
import { addJson, addSetting, addSettings, example, flagsOf, print, runDirOf } from './options.ts';
import { table } from './table.ts';

interface Options {
  config?: string;
  json?: boolean;
  runDir?: string;
  container?: number;
}

export function addExplainCommand(program: Command): void {
  const command = program
    .command('explain')
    .description('show which VM and container an overlay address is, or which overlay addresses a VM has')
    .argument('<ADDRESS>');
  addSetting(addJson(addSettings(command, ['overlay', 'underlay'])), 'run-dir');
  command.option(
    '--container <NUMBER>',
    "with a VM's address: the overlay address of its container with this number",
    wholeNumber,
  );
  example(
    command,
    'explain 10.16.32.91',
    'explain 10.16.32.91 --overlay 10.0.0.0/8 --underlay 192.168.0.0/16',
    'explain 192.168.16.32 --container 90 --overlay 10.0.0.0/8 --underlay 192.168.0.0/16',
  );
  command.action(async (text: string, options: Options) => {
    const address = parseAddress(text);
    if (!address) throw new InlayError('ERR_USAGE', `address "${text}": expected an IPv4 address such as 10.16.32.91`);
    const found = explain(await mappingsOf(flagsOf({ ...options }), options), address, options.container);
    print(options, found, () => table(Object.entries(found)));
  });
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
