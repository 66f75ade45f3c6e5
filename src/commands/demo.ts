/** demo: a whole mesh on this machine. */
import { type Command, InvalidArgumentError } from 'commander';
import { loadConfig } from '../config/config.ts';
import type { SettingName } from '../config/settings.ts';
import type { DemoResult } from '../demo/demo.ts';
import { InlayError } from '../errors.ts';
import { addJson, addSetting, example, flagsOf, print } from './options.ts';
import { table } from './table.ts';

interface Options {
  vms: number;
  containers: number;
  json?: boolean;
  keep?: boolean;
}

/** Flags that the demo passes on to each daemon. */
const PASSED_ON: SettingName[] = [
  ...(['dataplane', 'encapsulation', 'key', 'core', 'engine', 'gre-segmentation', 'fast-path', 'queues'] as const),
];
const DEFAULTS = { overlay: '10.0.0.0/8', underlay: '192.168.0.0/16' };

export function addDemoCommand(program: Command): void {
  const demo = program.command('demo').description('run a whole mesh on this machine, in namespaces of its own');
  demo
    .option('--vms <NUMBER>', 'how many VMs, 1 to 64', upTo(64), 3)
    .option('--containers <NUMBER>', 'how many containers each VM has, 1 to 1000', upTo(1000), 2);
  for (const name of ['overlay', 'underlay', ...PASSED_ON] as SettingName[]) addSetting(demo, name);
  addJson(demo).option('--keep', 'leave the mesh running and print how to look around');
  example(
    demo,
    'demo',
    'demo --vms 8 --containers 4 --overlay 240.0.0.0/4',
    'demo --containers 200',
    'demo --core typescript --json',
    'demo --dataplane kernel',
    'demo --fast-path off',
  );
  demo.action(async (options: Options) => {
    const flags = { ...DEFAULTS, ...flagsOf({ ...options }) };
    const [mapping] = loadConfig(flags).mappings;
    if (!mapping) throw new Error('a configuration has a mapping');
    const words = PASSED_ON.flatMap((name) => {
      const value = flagsOf({ ...options })[name];
      return value === undefined ? [] : [`--${name}`, value];
    });
    const { runDemo } = await import('../demo/demo.ts');
    const result = await runDemo({
      mapping,
      vms: options.vms,
      containers: options.containers,
      flags: words,
      keep: options.keep ?? false,
      progress: (text) => process.stderr.write(`${text}\n`),
    });
    print(options, result, () => resultText(result));
    if (result.reachable < result.tested || result.firstPacketsLost > 0) {
      throw new InlayError(
        'ERR_FAILED',
        `${result.tested - result.reachable} pairs not reachable, ${result.firstPacketsLost} first packets lost`,
      );
    }
  });
}

function upTo(most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= 1 && value <= most) return value;
    throw new InvalidArgumentError(`expected a number from 1 to ${most}.`);
  };
}

function resultText(result: DemoResult): string {
  const dash = (value: number | null) => (value === null ? '-' : String(value));
  const { overlay, underlay, encapsulation, core, engine, mtu } = result;
  const how = core === undefined ? `dataplane ${result.dataPlane}` : `core ${core}, engine ${engine}`;
  return [
    `mesh of ${result.vms} VMs with ${result.containers} containers each: ${overlay} over ${underlay}, ${encapsulation}, ${how}, MTU ${mtu}`,
    '',
    table([['FROM VM', 'TO VM', 'PAIRS', 'FIRST ms', 'STEADY ms', 'TCP Mbit/s'], ...vmRows(result)]),
    '',
    table([
      ['FROM VM', 'TUNNEL TO', 'PACKETS OUT', 'BYTES OUT', 'PACKETS IN', 'BYTES IN'],
      ...result.tunnels.map((t) => [
        t.from,
        t.vm,
        t.outbound.packets,
        t.outbound.bytes,
        t.inbound.packets,
        t.inbound.bytes,
      ]),
    ]),
    '',
    table([
      ...(result.tested < result.pairs ? [['pairs tested', `${result.tested} of ${result.pairs}`]] : []),
      ['pairs reachable', `${result.reachable} of ${result.tested}`],
      ['first packets lost', `${result.firstPacketsLost} of ${result.firstPackets}`],
      ['pings lost', `${result.pingsLost} of ${result.pings}`],
      ['RTT of first packets', `${dash(result.firstMs)} ms`],
      ['RTT, steady', `${dash(result.steadyMs)} ms`],
      ['one TCP stream', `${dash(result.megabitsPerSecond)} Mbit/s`],
      ['fast path', fastPathText(result.fastPath)],
    ]),
  ].join('\n');
}

function fastPathText({ state, obstacle, betweenVms, taken, withinVms }: DemoResult['fastPath']): string {
  if (state === 'off') return obstacle === undefined ? 'off' : `off: ${obstacle}`;
  return `${taken} of ${betweenVms} packets between VMs, ${withinVms} within them`;
}

/** One row per ordered pair of VMs: reachable pairs, the best first and steady RTT, the fastest stream. */
function vmRows({ results }: DemoResult): (string | number)[][] {
  const groups = new Map<string, typeof results>();
  for (const result of results) {
    const name = `${result.fromVm} ${result.toVm}`;
    groups.set(name, [...(groups.get(name) ?? []), result]);
  }
  const best = (values: (number | null)[], pick: (...values: number[]) => number) => {
    const known = values.filter((value) => value !== null);
    return known.length === 0 ? '-' : String(pick(...known));
  };
  return [...groups].map(([name, group]) => [
    ...name.split(' '),
    `${group.filter((r) => r.reachable).length}/${group.length}`,
    best(
      group.map((r) => r.firstMs),
      Math.max,
    ),
    best(
      group.map((r) => r.steadyMs),
      Math.min,
    ),
    best(
      group.map((r) => r.megabitsPerSecond),
      Math.max,
    ),
  ]);
}
