/** plan and explain: arithmetic alone, no daemon and no network. */
import { type Command, InvalidArgumentError } from 'commander';
import { loadConfig } from '../config/config.ts';
import { InlayError } from '../errors.ts';
import { parseAddress } from '../mesh/address.ts';
import { explain } from '../mesh/explain.ts';
import type { Mapping } from '../mesh/mapping.ts';
import { plan } from '../mesh/plan.ts';
import { addJson, addSettings, example, flagsOf, print } from './options.ts';
import { table } from './table.ts';

interface Options {
  config?: string;
  json?: boolean;
  container?: number;
}

export function addOfflineCommands(program: Command): void {
  const planCommand = program.command('plan').description('show what a pair of prefixes has room for');
  addJson(addSettings(planCommand, ['overlay', 'underlay']));
  example(planCommand, 'plan --overlay 240.0.0.0/4 --underlay 192.168.0.0/17');
  planCommand.action((options: Options) => {
    const plans = loadConfig(flagsOf({ ...options }), options.config).mappings.map(plan);
    print(options, plans.length === 1 ? plans[0] : plans, () => plans.map(planText).join('\n\n'));
  });

  const explainCommand = program
    .command('explain')
    .description('show what an address means, or a VM has')
    .argument('<ADDRESS>');
  addJson(addSettings(explainCommand, ['overlay', 'underlay']));
  explainCommand.option(
    '--container <NUMBER>',
    "the address of this container on the underlay address's VM",
    wholeNumber,
  );
  example(
    explainCommand,
    'explain 10.16.32.91 --overlay 10.0.0.0/8 --underlay 192.168.0.0/16',
    'explain 192.168.16.32 --container 90 --overlay 10.0.0.0/8 --underlay 192.168.0.0/16',
  );
  explainCommand.action((text: string, options: Options) => {
    const mappings: Mapping[] = loadConfig(flagsOf({ ...options }), options.config).mappings;
    const address = parseAddress(text);
    if (!address) throw new InlayError('ERR_USAGE', `address "${text}": expected an IPv4 address such as 10.16.32.91`);
    const found = explain(mappings, address, options.container);
    print(options, found, () => table(Object.entries(found)));
  });
}

function planText({ warnings, ...facts }: ReturnType<typeof plan>): string {
  const names: Record<keyof typeof facts, string> = {
    overlay: 'overlay',
    underlay: 'underlay',
    vmBits: 'VM bits',
    containerBits: 'container bits',
    vms: 'VMs',
    addressesPerVm: 'addresses per VM',
    containersPerVm: 'containers per VM',
    sliceLength: 'slice length',
  };
  const rows = Object.entries(names).map(([key, name]) => [name, String(facts[key as keyof typeof facts])]);
  return [table(rows), ...warnings.map((warning) => `warning: ${warning}`)].join('\n');
}

function wholeNumber(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('expected a whole number.');
  return Number(text);
}
