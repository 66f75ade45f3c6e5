/**
 * plan: what a pair of prefixes has room for, or which pairs have room for so many VMs and containers.
 * Arithmetic alone, no daemon and no network.
 */
import type { Command } from 'commander';
import { type Flags, loadConfig, loadPrefixes } from '../config/config.ts';
import { InlayError } from '../errors.ts';
import { type Plan, plan } from '../mesh/plan.ts';
import { propose } from '../mesh/propose.ts';
import { addJson, addSettings, example, flagsOf, positive, print } from './options.ts';
import { table } from './table.ts';

interface Options {
  config?: string;
  json?: boolean;
  vms?: number;
  containers?: number;
}

export function addPlanCommand(program: Command): void {
  const command = program
    .command('plan')
    .description('show what a pair of prefixes has room for, or propose pairs for so many VMs and containers');
  addJson(addSettings(command, ['overlay', 'underlay']))
    .option('--containers <NUMBER>', 'propose prefixes with room for so many containers on each VM', positive)
    .option('--vms <NUMBER>', 'with --containers: for so many VMs (default: every address of the underlay)', positive);
  example(
    command,
    'plan --overlay 240.0.0.0/4 --underlay 192.168.0.0/17',
    'plan --containers 2000 --vms 500',
    'plan --containers 2000 --underlay 10.20.0.0/20',
  );
  command.action((options: Options) => {
    const flags = flagsOf({ ...options });
    if (options.vms === undefined && options.containers === undefined) showPlans(flags, options);
    else showProposals(flags, options);
  });
}

function showPlans(flags: Flags, options: Options): void {
  const plans = loadConfig(flags, options.config).mappings.map((mapping) => plan(mapping));
  print(options, plans.length === 1 ? plans[0] : plans, () => plans.map(planText).join('\n\n'));
}

function planText({ warnings, ...facts }: Plan): string {
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

function showProposals(flags: Flags, options: Options): void {
  const { overlay, underlay } = loadPrefixes(flags, options.config);
  const { vms, containers } = options;
  if (containers === undefined) throw new InlayError('ERR_USAGE', '--vms goes with --containers');
  if (vms === undefined && !underlay) {
    throw new InlayError('ERR_USAGE', '--containers goes with --vms, or with the --underlay that the VMs have');
  }
  const wanted = {
    containers,
    ...(vms !== undefined && { vms }),
    ...(overlay && { overlay }),
    ...(underlay && { underlay }),
  };
  // Each proposal has the bits that the user asked for: a warning of too few would be wrong.
  const plans = propose(wanted).map((mapping) => plan(mapping, 0));
  print(options, plans, () => proposalsText(plans, underlay === undefined));
}

/** `isExample` says that the underlay prefixes were made up. */
function proposalsText(plans: readonly Plan[], isExample: boolean): string {
  const bits = ({ sliceLength, vmBits, containerBits }: Plan) =>
    `${sliceLength - vmBits} + ${vmBits} + ${containerBits}`;
  // A warning about a network is the same for each of its prefixes: it is shown once.
  const warnings = new Map(plans.flatMap((each) => each.warnings).map((text) => [text.replace(/^[\d./]+ /, ''), text]));
  const length = plans[0]?.underlay.split('/')[1];
  return [
    table([
      ['OVERLAY', 'UNDERLAY', 'PREFIX + VM + CONTAINER BITS', 'VMS', 'CONTAINERS PER VM'],
      ...plans.map((each) => [each.overlay, each.underlay, bits(each), each.vms, each.containersPerVm]),
    ]),
    ...(isExample ? [`The underlay is an example: any /${length} will do that holds the addresses of all VMs.`] : []),
    ...[...warnings.values()].map((warning) => `warning: ${warning}`),
  ].join('\n');
}
