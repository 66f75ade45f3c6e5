/** plan: what a pair of prefixes has room for. Arithmetic alone, no daemon and no network. */
import type { Command } from 'commander';
import { loadConfig } from '../config/config.ts';
import { plan } from '../mesh/plan.ts';
import { addJson, addSettings, example, flagsOf, print } from './options.ts';
import { table } from './table.ts';

interface Options {
  config?: string;
  json?: boolean;
}

export function addPlanCommand(program: Command): void {
  const command = program.command('plan').description('show what a pair of prefixes has room for');
  addJson(addSettings(command, ['overlay', 'underlay']));
  example(command, 'plan --overlay 240.0.0.0/4 --underlay 192.168.0.0/17');
  command.action((options: Options) => {
    const plans = loadConfig(flagsOf({ ...options }), options.config).mappings.map(plan);
    print(options, plans.length === 1 ? plans[0] : plans, () => plans.map(planText).join('\n\n'));
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
