/**
 * Three VMs with a real daemon and one container each: one that gets very many containers, one that keeps its
 * one, and one that talks to both. What they and the machine hold is read here, too.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Lab } from '../../dist/demo/lab.js';
import { Mesh } from '../../dist/demo/mesh.js';
import { formatPrefix, parsePrefix } from '../../dist/mesh/address.js';
import { Mapping } from '../../dist/mesh/mapping.js';
import { told } from '../../test/net/faults/told.mjs';
import { TICKS } from '../machine.mjs';

/** 13 bits for containers. */
const MAPPING = new Mapping(parsePrefix('240.0.0.0/4'), parsePrefix('192.168.0.0/17'));
/** ms that a daemon may take to end. */
const PATIENCE = 30_000;
/** ms between two looks at the memory, and how many there are at most. */
const [SETTLING, LOOKS] = [1000, 20];

const HOST = fileURLToPath(new URL('host.mjs', import.meta.url));
const PROBER = fileURLToPath(new URL('prober.mjs', import.meta.url));

/** kB of /proc/meminfo. */
function kernelMemory() {
  const text = readFileSync('/proc/meminfo', 'utf8');
  const [available, slab, perCpu] = ['MemAvailable', 'Slab', 'Percpu'].map((name) =>
    Number(new RegExp(`^${name}: +(\\d+)`, 'm').exec(text)?.[1] ?? 0),
  );
  return { available, objects: slab + perCpu };
}

/** The same, once it falls no longer: what is gone is freed later. */
export async function settledMemory() {
  for (let last = kernelMemory(), i = 0; ; i++) {
    await sleep(SETTLING);
    const now = kernelMemory();
    if (last.objects - now.objects < now.objects / 100 || i === LOOKS) return now;
    last = now;
  }
}

/** A process that is told what to do, and whose failures are ours. */
async function agent(lab, where, script) {
  const tell = await told(lab, where, script);
  return async (name, options) => {
    const { result, error } = await tell(name, options);
    if (error) throw new Error(error);
    return result;
  };
}

export class World {
  lab;
  #mesh;
  /** The process that attaches. */
  host;
  /** The process that pings and connects. */
  probe;

  /** `lab` is closed by whoever opened it. */
  static async make(lab, flags, count) {
    const world = new World();
    world.lab = lab;
    world.#mesh = await Mesh.start(lab, { mapping: MAPPING, vms: 3, containersPerVm: 1, flags });
    world.host = await agent(lab, world.dense.name, HOST);
    world.probe = await agent(lab, world.peer.containers[0].name, PROBER);
    const { mtu } = await world.status(world.dense);
    const [overlay, underlay] = [MAPPING.overlay, MAPPING.underlay].map(formatPrefix);
    await world.host('open', { overlay, underlay, local: world.dense.underlay, mtu, count });
    return world;
  }

  static get capacity() {
    return Number(MAPPING.containersPerVm);
  }

  get dense() {
    return this.#mesh.vms[0];
  }

  get single() {
    return this.#mesh.vms[1];
  }

  get peer() {
    return this.#mesh.vms[2];
  }

  status(vm) {
    return this.#mesh.status(vm);
  }

  /** What iperf3 needs to know: from the peer's container to the one that this VM had from the beginning. */
  streamTo(vm, port) {
    const [from, to] = [this.peer.containers[0], vm.containers[0]];
    return { lab: this.lab, vms: { from: from.name, to: to.name, address: to.address, cpu: () => 0 }, port };
  }

  /** ms from the start of a VM's daemon, which is ended before, until it is ready; and CPU seconds of the `after` ms that follow. */
  async restart(vm, after) {
    const { pid } = await this.status(vm);
    await this.lab.must(undefined, ['kill', '-TERM', String(pid)]);
    const isThere = async () => (await this.lab.run(undefined, ['kill', '-0', String(pid)])).code === 0;
    for (const end = performance.now() + PATIENCE; await isThere(); await sleep(10))
      if (performance.now() > end) throw new Error(`the daemon of ${vm.name} does not end`);
    const start = performance.now();
    await this.#mesh.startDaemon(vm);
    const ms = performance.now() - start;
    const before = await this.daemon(vm);
    await sleep(after);
    return { ms, cpu: (await this.daemon(vm)).cpu - before.cpu };
  }

  /** CPU seconds of all threads and of the first alone, which forwards nothing; memory in MB; descriptors. */
  async daemon(vm) {
    const { pid } = await this.status(vm);
    const at = this.lab.path(`/proc/${pid}`);
    const cpu = secondsIn(readFileSync(`${at}/stat`, 'utf8'));
    const control = secondsIn(readFileSync(`${at}/task/${pid}/stat`, 'utf8'));
    const memory = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`${at}/status`, 'utf8'))[1]) / 1024;
    return { cpu, control, memory, descriptors: readdirSync(`${at}/fd`).length };
  }

  /** How many of each the kernel has in a VM. Tombstones are routes of addresses that cool down. */
  async counts(vm) {
    const script = `ls /sys/class/net | grep -c '^inl.\\{12\\}$'
      ip route show proto 74 | grep -vc ^unreachable; ip route show proto 74 | grep -c ^unreachable
      ip route show table all | wc -l; ip neighbour show nud permanent | wc -l; ip neighbour show nud all | wc -l`;
    const { stdout } = await this.lab.run(vm.name, ['sh', '-c', script]);
    const [links, claims, tombstones, routes, permanent, neighbours] = stdout.trim().split('\n').map(Number);
    const tunnels = (await this.#mesh.tunnels(vm)).length;
    return { links, claims, tombstones, routes, permanent, neighbours, tunnels };
  }
}

export const openLab = () => Lab.open();

/** utime and stime, the 14th and 15th field (proc(5)). The second is the command's name in parentheses, which may hold anything. */
function secondsIn(stat) {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}
