/** explain: what an address means. Arithmetic alone, no daemon and no network. */
import { type Command, InvalidArgumentError } from 'commander';
import { loadConfig } from '../config/config.ts';
import { InlayError } from '../errors.ts';
import { parseAddress } from '../mesh/address.ts';
import { explain } from '../mesh/explain.ts';
import { addJson, addSettings, example, flagsOf, print } from './options.ts';
import { table } from './table.ts';

interface Options {
  config?: string;
  json?: boolean;
  container?: number;
}

export function addExplainCommand(program: Command): void {
  const command = program
    .command('explain')
    .description('show what an address means, or a VM has')
    .argument('<ADDRESS>');
  addJson(addSettings(command, ['overlay', 'underlay']));
  command.option('--container <NUMBER>', "the address of this container on the underlay address's VM", wholeNumber);
  example(
    command,
    'explain 10.16.32.91 --overlay 10.0.0.0/8 --underlay 192.168.0.0/16',
    'explain 192.168.16.32 --container 90 --overlay 10.0.0.0/8 --underlay 192.168.0.0/16',
  );
  command.action((text: string, options: Options) => {
    const { mappings } = loadConfig(flagsOf({ ...options }), options.config);
    const address = parseAddress(text);
    if (!address) throw new InlayError('ERR_USAGE', `address "${text}": expected an IPv4 address such as 10.16.32.91`);
    const found = explain(mappings, address, options.container);
    print(options, found, () => table(Object.entries(found)));
  });
}

function wholeNumber(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('expected a whole number.');
  return Number(text);
}
