/** `demo`: a whole mesh on this machine, real traffic between its containers, and what came of it. */
import { formatPrefix } from '../mesh/address.ts';
import type { Mapping } from '../mesh/mapping.ts';
import type { Status, TunnelStatus } from '../observe/status.ts';
import { Lab, requireCommands } from './lab.ts';
import { type Container, Mesh, type Vm } from './mesh.ts';
import { pairsToTest } from './pairs.ts';
import { Agents, median, type PingResult, pingAll } from './traffic.ts';

export interface DemoOptions {
  mapping: Mapping;
  vms: number;
  containers: number;
  /** Further words for `inlay up`. */
  flags: readonly string[];
  keep: boolean;
  /** Called with a line of text when something happens. */
  progress: (text: string) => void;
}

interface PairResult {
  from: string;
  to: string;
  fromVm: string;
  toVm: string;
  sent: number;
  received: number;
  /** ms; null if lost. */
  firstMs: number | null;
  steadyMs: number | null;
  /** Mbit/s of one TCP stream; null if it failed. */
  megabitsPerSecond: number | null;
  reachable: boolean;
}

export interface DemoResult {
  vms: number;
  containers: number;
  overlay: string;
  underlay: string;
  encapsulation: string;
  dataPlane: string;
  /** Only with data plane wasm. */
  core?: string | undefined;
  engine?: string | undefined;
  mtu: number;
  /** Ordered pairs of containers, how many of them were tested, and in how many ping and TCP got through. */
  pairs: number;
  tested: number;
  reachable: number;
  /** First packets to a VM that no tunnel led to yet, and how many were lost. */
  firstPackets: number;
  firstPacketsLost: number;
  /** All pings, and how many of them were lost. */
  pings: number;
  pingsLost: number;
  /** Medians over pairs on different VMs. */
  firstMs: number | null;
  steadyMs: number | null;
  /** One TCP stream between two VMs, alone, for a second. */
  megabitsPerSecond: number | null;
  fastPath: DemoFastPath;
  tunnels: (TunnelStatus & { from: string })[];
  results: PairResult[];
}

/** What the fast path took of all VMs' packets. */
interface DemoFastPath {
  /** `on` where all VMs have it. */
  state: 'on' | 'off';
  /** Why not, if a VM says so. */
  obstacle?: string;
  /** Packets that VMs sent to others, and how many of them it took. */
  betweenVms: number;
  taken: number;
  /** Packets between containers of one VM that it took. Others are not counted. */
  withinVms: number;
}

/**
 * ms of one stream between two VMs, alone. Its rate decides how much each pair sends, so that all pairs
 * together take about STREAMS ms.
 */
const LONG_STREAM = 1000;
const STREAMS = 2000;
const MIN_STREAM = 64 << 10;
const MAX_STREAM = 8 << 20;

export async function runDemo(options: DemoOptions): Promise<DemoResult> {
  requireCommands('ping');
  const lab = await Lab.open({ keep: options.keep });
  let kept = false;
  const end = () => void lab.close().then(() => process.exit(130));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, end);
  try {
    const { mapping, vms, containers, progress } = options;
    const flags = [...options.flags, ...(await kernelFlags(lab, options))];
    progress(`starting ${vms} VMs with ${containers} containers each`);
    const mesh = await Mesh.start(lab, { mapping, vms, containersPerVm: containers, flags });
    const result = await measure(lab, mesh, options);
    kept = options.keep;
    if (kept) progress(lookAround(lab, mesh));
    return result;
  } finally {
    if (!kept) await lab.close();
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, end);
  }
}

/**
 * The kernel data plane needs a kind of device that this kernel has. All VMs of the demo share this kernel,
 * so all can have the same kind.
 */
async function kernelFlags(lab: Lab, { flags, progress }: DemoOptions): Promise<string[]> {
  const isKernel = flags.some((flag, i) => flag === '--dataplane' && flags[i + 1] === 'kernel');
  if (!isKernel || flags.includes('--encapsulation')) return [];
  const { code } = await lab.run(undefined, ['ip', 'link', 'add', 'probe', 'type', 'gre', 'local', '127.0.0.1']);
  if (code === 0) {
    await lab.ip(undefined, ['link delete probe']);
    return [];
  }
  progress('this kernel has no GRE devices: the VMs use vxlan');
  return ['--encapsulation', 'vxlan'];
}

async function measure(lab: Lab, mesh: Mesh, { mapping, progress }: DemoOptions): Promise<DemoResult> {
  const { containers, vms } = mesh;
  const ordered = containers.length * (containers.length - 1);
  const heads = vms.flatMap((vm) => vm.containers.slice(0, 1));

  progress('sending the first packets: no tunnel exists yet');
  const opening = await pingAll(
    lab,
    heads.flatMap((from) => heads.filter((to) => to !== from).map((to) => [from, to] as const)),
  );

  const nameOf = (from: Container, to: Container) => `${from.name} ${to.name}`;
  const done = new Set(opening.map(({ from, to }) => nameOf(from, to)));
  const others = pairsToTest(vms).filter((pair) => !done.has(nameOf(...pair)));
  const tested = done.size + others.length;
  const many = tested < ordered ? `${tested} of ${ordered}` : `all ${ordered}`;
  progress(`pinging between ${many} pairs of containers`);
  const pings = [...opening, ...(await pingAll(lab, others))];

  progress(`sending TCP streams between ${tested < ordered ? 'these' : 'all'} pairs`);
  const agents = await Agents.start(lab, vms);
  const [a, b] = heads;
  const long = a && b ? await agents.stream(a, { to: b.address, bytes: 0, milliseconds: LONG_STREAM }) : undefined;
  const affordable = ((long ?? 0) * 1000 * STREAMS) / 8 / (pings.length || 1);
  const bytes = Math.max(MIN_STREAM, Math.min(MAX_STREAM, affordable));
  const results: PairResult[] = [];
  for (const ping of pings.sort((a, b) => (addressesOf(a) < addressesOf(b) ? -1 : 1))) {
    const { from, to, received } = ping;
    const rate = received > 0 ? await agents.stream(from, { to: to.address, bytes, milliseconds: 0 }) : undefined;
    results.push(pairResult(ping, rate));
  }
  agents.stop();

  const tunnels = await Promise.all(
    vms.map(async (vm) => (await mesh.tunnels(vm)).map((tunnel) => ({ from: vm.underlay, ...tunnel }))),
  );
  const all = await Promise.all(vms.map((vm) => mesh.status(vm)));
  const [status] = all as [Status, ...Status[]];
  const across = results.filter((r) => r.fromVm !== r.toVm);
  const firsts = opening.flatMap(({ first }) => first ?? []);
  return {
    vms: vms.length,
    containers: containers.length / vms.length,
    overlay: formatPrefix(mapping.overlay),
    underlay: formatPrefix(mapping.underlay),
    encapsulation: status.encapsulation,
    dataPlane: status.dataPlane,
    core: status.core,
    engine: status.engine,
    mtu: status.mtu,
    pairs: ordered,
    tested: results.length,
    reachable: results.filter((r) => r.reachable).length,
    firstPackets: opening.length,
    firstPacketsLost: opening.length - firsts.length,
    pings: results.reduce((sum, r) => sum + r.sent, 0),
    pingsLost: results.reduce((sum, r) => sum + r.sent - r.received, 0),
    firstMs: round(median(firsts)),
    steadyMs: round(median(across.flatMap((r) => r.steadyMs ?? []))),
    megabitsPerSecond: round(long),
    fastPath: fastPathOf(all),
    tunnels: tunnels.flat(),
    results,
  };
}

function fastPathOf(all: readonly Status[]): DemoFastPath {
  const sum = (of: (status: Status) => number | undefined) => all.reduce((total, each) => total + (of(each) ?? 0), 0);
  const obstacle = all.flatMap(({ fastPath }) => fastPath?.obstacle ?? [])[0];
  return {
    state: all.every(({ fastPath }) => fastPath?.state === 'on') ? 'on' : 'off',
    ...(obstacle !== undefined && { obstacle }),
    betweenVms: sum(({ outbound }) => outbound.packets),
    taken: sum(({ fastPath }) => fastPath?.outbound.packets),
    withinVms: sum(({ fastPath }) => fastPath?.local.packets),
  };
}

/** By which pairs are sorted. */
function addressesOf({ from, to }: PingResult): string {
  return `${from.address} ${to.address}`;
}

function pairResult(ping: PingResult, rate: number | undefined): PairResult {
  const { from, to } = ping;
  return {
    from: from.address,
    to: to.address,
    fromVm: from.vm.underlay,
    toVm: to.vm.underlay,
    sent: ping.sent,
    received: ping.received,
    firstMs: round(ping.first),
    steadyMs: round(ping.steady),
    megabitsPerSecond: round(rate),
    reachable: ping.received > 0 && rate !== undefined,
  };
}

function round(value: number | undefined): number | null {
  return value === undefined ? null : Number(value.toPrecision(4));
}

function lookAround(lab: Lab, mesh: Mesh): string {
  const [vm] = mesh.vms as [Vm, ...Vm[]];
  const [container] = vm.containers;
  const words = (where: string, ...command: string[]) => `  ${lab.command(where, command).join(' ')}`;
  return [
    'the mesh keeps running; look around with',
    words(vm.name, 'ip', 'route'),
    ...(container ? [words(container.name, 'ping', mesh.containers.at(-1)?.address ?? vm.overlay)] : []),
    ...['tunnels', 'containers'].map((command) =>
      words(vm.name, process.execPath, process.argv[1] ?? 'inlay', command, '--run-dir', vm.runDir),
    ),
    'and remove it with',
    `  kill -9 ${lab.pid}`,
  ].join('\n');
}
