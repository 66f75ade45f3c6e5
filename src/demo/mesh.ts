/**
 * A mesh in a lab: VMs that a bridge joins, each with a real daemon, and containers, each a network
 * namespace.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { namesOf } from '../containers/alias.ts';
import { DEFAULT_IFNAME } from '../containers/found.ts';
import { ask } from '../daemon/control.ts';
import { EXIT, InlayError } from '../errors.ts';
import { plainErrors } from '../log.ts';
import { type Address, formatAddress, formatPrefix, lowBits } from '../mesh/address.ts';
import type { Mapping } from '../mesh/mapping.ts';
import type { Status, TunnelStatus } from '../observe/status.ts';
import type { AttachPlan } from './attach.ts';
import type { Lab } from './lab.ts';

export interface MeshPlan {
  mapping: Mapping;
  vms: number;
  containersPerVm: number;
  /** Further words for `inlay up`. */
  flags: readonly string[];
  /** Words before the command, such as those that run it as another user. */
  wrapper?: readonly string[];
  /** Of the underlay, in bytes; 1,500 unless given. */
  mtu?: number;
}

export interface Container {
  /** Its network namespace, and its id. */
  name: string;
  number: number;
  address: string;
  /** The VM's end of its veth. */
  hostInterface: string;
  vm: Vm;
}

export interface Vm {
  /** Its network namespace. */
  name: string;
  underlay: string;
  overlay: string;
  slice: string;
  runDir: string;
  containers: Container[];
}

const BRIDGE = 'underlay';
const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const ATTACH = fileURLToPath(new URL('../../dist/demo/attach.js', import.meta.url));
/** s */
const READY_TIMEOUT = 30;
/** The first VM is 192.168.16.32 where the underlay prefix has room for that, as in the documentation. */
const FIRST_VM = 0x1020n;
/** The first container has the number 90 where a slice has room for that. */
const FIRST_CONTAINER = 90n;

export class Mesh {
  readonly vms: Vm[];
  readonly #lab: Lab;
  readonly #plan: MeshPlan;

  private constructor(lab: Lab, plan: MeshPlan) {
    this.#lab = lab;
    this.#plan = plan;
    this.vms = layOut(plan);
  }

  get containers(): Container[] {
    return this.vms.flatMap((vm) => vm.containers);
  }

  /** Builds the network, starts the daemons, waits until they are ready, attaches the containers. */
  static async start(lab: Lab, plan: MeshPlan): Promise<Mesh> {
    const mesh = new Mesh(lab, plan);
    await mesh.#buildUnderlay();
    await Promise.all(mesh.vms.map((vm) => mesh.startDaemon(vm)));
    await Promise.all(mesh.vms.map((vm) => mesh.#attachContainers(vm)));
    return mesh;
  }

  async #buildUnderlay(): Promise<void> {
    const { mapping, mtu = 1500 } = this.#plan;
    const lines = [`link add ${BRIDGE} type bridge`, `link set ${BRIDGE} up`];
    for (const vm of this.vms) {
      const port = `port-${vm.name}`;
      lines.push(
        `netns add ${vm.name}`,
        `link add ${port} type veth peer name eth0 netns ${vm.name}`,
        `link set ${port} master ${BRIDGE} mtu ${mtu} up`,
      );
    }
    for (const container of this.containers) lines.push(`netns add ${container.name}`);
    await this.#lab.ip(undefined, lines);
    for (const vm of this.vms) {
      const length = mapping.underlay.length;
      await this.#lab.ip(vm.name, [
        'link set lo up',
        `address add ${vm.underlay}/${length} dev eth0`,
        `link set eth0 mtu ${mtu} up`,
      ]);
    }
    await this.#lab.linksUp(
      undefined,
      this.vms.map(({ name }) => `port-${name}`),
    );
  }

  /** Starts the daemon of a VM that has none, and waits until it is ready. */
  async startDaemon(vm: Vm): Promise<void> {
    const { overlay, underlay } = this.#plan.mapping;
    const prefixes = ['--overlay', formatPrefix(overlay), '--underlay', formatPrefix(underlay)];
    const { wrapper = [], flags } = this.#plan;
    const words = [...wrapper, process.execPath, CLI, 'up', ...prefixes, '--run-dir', vm.runDir, ...flags];
    // The log goes to a file, so that the daemon does not depend on us.
    const shell = ['sh', '-c', `exec "$@" 2>${logOf(vm)}`, 'sh', ...words];
    const child = this.#lab.start(vm.name, shell, { stdio: 'ignore', detached: true });
    child.unref();
    const ended = new Promise<number>((resolve) => child.once('exit', (code) => resolve(code ?? -1)));

    const deadline = performance.now() + READY_TIMEOUT * 1000;
    for (;;) {
      const status = await this.status(vm).catch(() => undefined);
      if (status?.state === 'running') return;
      const code = await Promise.race([ended, sleep(20, performance.now() > deadline ? -1 : undefined)]);
      if (code === undefined) continue;
      // The daemon's own message says what is missing and what to do.
      const kind = code === EXIT.noPermission ? 'ERR_PERMISSION' : 'ERR_FAILED';
      throw new InlayError(kind, `the daemon of ${vm.name} did not get ready:\n${plainErrors(await this.log(vm))}`);
    }
  }

  async #attachContainers(vm: Vm): Promise<void> {
    if (vm.containers.length === 0) return;
    const { mapping } = this.#plan;
    const { mtu } = await this.status(vm);
    const plan: AttachPlan = {
      overlay: formatPrefix(mapping.overlay),
      underlay: formatPrefix(mapping.underlay),
      local: vm.underlay,
      mtu,
      containers: vm.containers.map(({ name, number }) => ({ netns: name, id: name, container: number })),
    };
    await this.#lab.must(vm.name, [process.execPath, ATTACH], JSON.stringify(plan));
    await this.#lab.linksUp(
      vm.name,
      vm.containers.map(({ hostInterface }) => hostInterface),
    );
  }

  status(vm: Vm): Promise<Status> {
    return ask(this.#lab.path(vm.runDir), 'status');
  }

  tunnels(vm: Vm): Promise<TunnelStatus[]> {
    return ask(this.#lab.path(vm.runDir), 'tunnels');
  }

  async log(vm: Vm): Promise<string> {
    return (await this.#lab.run(undefined, ['cat', logOf(vm)])).stdout;
  }
}

function logOf(vm: Vm): string {
  return `${vm.runDir}.log`;
}

function layOut({ mapping, vms, containersPerVm }: MeshPlan): Vm[] {
  const firstVm = fits(FIRST_VM, vms, 1n << BigInt(mapping.vmBits)) ? FIRST_VM : 1n;
  const firstContainer = fits(FIRST_CONTAINER, containersPerVm, mapping.containersPerVm + 1n) ? FIRST_CONTAINER : 1n;
  if (!fits(firstVm, vms, 1n << BigInt(mapping.vmBits)))
    throw new InlayError('ERR_USAGE', `no room for ${vms} VMs: ${mapping.vms} in this plan`);
  if (!fits(firstContainer, containersPerVm, mapping.containersPerVm + 1n)) {
    throw new InlayError(
      'ERR_USAGE',
      `no room for ${containersPerVm} containers a VM: ${mapping.containersPerVm} in this plan`,
    );
  }
  return Array.from({ length: vms }, (_, i) => {
    const underlay: Address = {
      width: 32,
      bits: mapping.underlay.bits | ((firstVm + BigInt(i)) & lowBits(mapping.vmBits)),
    };
    const vm: Vm = {
      name: `vm${i + 1}`,
      underlay: formatAddress(underlay),
      overlay: formatAddress(mapping.addressOf(underlay, 1n)),
      slice: formatPrefix(mapping.sliceOf(underlay)),
      runDir: `/run/vm${i + 1}`,
      containers: [],
    };
    vm.containers = Array.from({ length: containersPerVm }, (_, n) => {
      const name = `c${i + 1}-${n + 1}`;
      const number = firstContainer + BigInt(n);
      const address = formatAddress(mapping.addressOf(underlay, number + 1n));
      const { hostInterface } = namesOf({ id: name, ifname: DEFAULT_IFNAME });
      return { name, number: Number(number), address, hostInterface, vm };
    });
    return vm;
  });
}

/**
 * True if `count` numbers from `first` on stay below `end`; the last is left free, as it may be a broadcast
 * address.
 */
function fits(first: bigint, count: number, end: bigint): boolean {
  return first + BigInt(count) < end;
}
