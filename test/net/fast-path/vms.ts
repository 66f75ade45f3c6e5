/** VMs whose containers are attached, for what is to be the same with the fast path and without it. */

import { fileURLToPath } from 'node:url';
import { expect, vi } from 'vitest';
import type { Attachment } from '../../../src/containers/attachment.ts';
import { Lab } from '../../../src/demo/lab.ts';
import type { Status } from '../../../src/observe/status.ts';
import { ContainerVms, type Library } from '../container-vms.ts';
import { told } from '../faults/told.mjs';
import { type Daemon, PATIENCE, type Plane } from '../vms.ts';

const AGENT = fileURLToPath(new URL('../../attack/agent.mjs', import.meta.url));
/** Number of the first container of each VM. */
const FIRST = 90;
const PINGS = 4;
/** Of a frame that is as long as any. */
const WHOLE = 70_000;
const [ETHERNET_HEADER, IPV4] = [14, '0800'];

/** An IPv4 packet that came somewhere. */
export interface Seen {
  at: string;
  packet: Buffer;
}

/** What was taken past the data plane, in packets. */
export interface Taken {
  outbound: number;
  inbound: number;
  local: number;
}

type Told = Awaited<ReturnType<typeof told>>;

export class FastPathVms extends ContainerVms {
  readonly #libraries = new Map<string, Library>();
  /** By the name of their network namespace. */
  readonly #attached = new Map<string, Attachment & { vm: string }>();
  #agent: Told | undefined;

  static override async of(plane: Plane, ...names: string[]): Promise<FastPathVms> {
    return await new FastPathVms(await Lab.open(), plane, names).joined();
  }

  /** With an idle timeout that makes the data plane look at its tunnels every two seconds. */
  override async up(name: string, ...flags: string[]): Promise<Daemon> {
    return await super.up(name, '--idle-timeout', '8s', ...flags);
  }

  override async close(): Promise<void> {
    await Promise.all([...this.#libraries.values()].map((library) => library.close()));
    await super.close();
  }

  /** Attaches containers to a VM whose daemon runs: the first has number 90 unless others are there. */
  async attachTo(vm: string, ...names: string[]): Promise<void> {
    const { mtu } = await this.status(vm);
    const library = this.#libraries.get(vm) ?? this.library(vm, { mtu });
    this.#libraries.set(vm, library);
    await this.namespaces(...names);
    for (const name of names) {
      const container = FIRST + this.#of(vm).length;
      this.#attached.set(name, { vm, ...(await library.attach({ netns: name, id: name, container })) });
    }
    await this.lab.linksUp(
      vm,
      names.map((name) => this.attached(name).hostInterface),
    );
    // Nothing but what tests send.
    for (const name of names)
      await this.lab.must(name, ['sh', '-c', 'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6']);
  }

  async detach(name: string): Promise<void> {
    const { vm } = this.attached(name);
    await this.#libraries.get(vm)?.detach({ id: name });
    this.#attached.delete(name);
  }

  #of(vm: string): string[] {
    return [...this.#attached].flatMap(([name, each]) => (each.vm === vm ? [name] : []));
  }

  attached(name: string): Attachment & { vm: string } {
    const found = this.#attached.get(name);
    if (!found) throw new Error(`no container ${name}`);
    return found;
  }

  address(name: string): string {
    return this.attached(name).address;
  }

  /** As `stream` takes it. */
  target(name: string): { name: string; address: string } {
    return { name, address: this.address(name) };
  }

  /**
   * Waits until the fast path of a VM has all of its containers, if it is on: for a device that came after the
   * daemon's start that takes a second.
   */
  async settled(...vms: string[]): Promise<void> {
    for (const vm of vms) {
      await vi.waitFor(async () => {
        const { fastPath } = await this.status(vm);
        const [has, wanted] = [fastPath?.containers, this.#of(vm).length];
        if (fastPath?.state === 'on' && has !== wanted) throw new Error(`${has} of ${wanted} containers of ${vm}`);
      }, PATIENCE);
    }
  }

  /** Sends between containers until all pings are answered, and where the fast path is on it takes them. */
  async acquainted(from: string, to: string): Promise<void> {
    const all = [...new Set([from, to].map((name) => this.attached(name).vm))];
    const isTaken = async (vm: string, before: Status) => {
      const { fastPath } = await this.status(vm);
      if (fastPath?.state !== 'on') return true;
      const [now, then] = [fastPath, before.fastPath];
      const name = all.length === 1 ? 'local' : 'outbound';
      return now[name].packets - (then?.[name].packets ?? 0) >= PINGS - 1;
    };
    await vi.waitFor(async () => {
      const before = await Promise.all(all.map((vm) => this.status(vm)));
      const answered = await this.pings(from, this.address(to), PINGS);
      if (answered !== String(PINGS)) throw new Error(`${answered} of ${PINGS} pings of ${from} to ${to}`);
      for (const [i, vm] of all.entries())
        if (!(await isTaken(vm, before[i] as Status)))
          throw new Error(`${vm} does not take what ${from} and ${to} say`);
    }, PATIENCE);
  }

  async taken(vm: string): Promise<Taken> {
    return takenOf(await this.status(vm));
  }

  /** From now on frames are sent and seen by the devices `eth0` of these containers and VMs. */
  async watch(...names: string[]): Promise<void> {
    this.#agent ??= await told(this.lab, undefined, AGENT);
    for (const name of names) await this.#agent('watch', { at: name, namespace: name, device: 'eth0', shown: WHOLE });
  }

  /** Takes datagrams to this UDP port in these namespaces. */
  async take(port: number, ...names: string[]): Promise<void> {
    for (const name of names)
      await this.#agent?.('serve', { at: `${name} port ${port}`, namespace: name, port, shown: WHOLE });
  }

  /** Sends frames by a device that is watched; answers how many the kernel refused. */
  async send(at: string, frames: readonly Uint8Array[]): Promise<number> {
    return (await this.#agent?.(
      'send',
      frames.map((frame) => ({ at, hex: Buffer.from(frame).toString('hex') })),
    )) as number;
  }

  /** IPv4 packets that came by watched devices, and datagrams, since it was last asked for. */
  async collect(): Promise<Seen[]> {
    const all = ((await this.#agent?.('collect')) ?? []) as { at: string; hex: string; datagramFrom?: string }[];
    return all.flatMap(({ at, hex, datagramFrom }) => {
      if (datagramFrom !== undefined) return [{ at, packet: Buffer.from(hex, 'hex') }];
      if (hex.slice(24, 28) !== IPV4) return [];
      return [{ at, packet: Buffer.from(hex.slice(2 * ETHERNET_HEADER), 'hex') }];
    });
  }

  async macOf(where: string, device = 'eth0'): Promise<string> {
    return (await this.lab.must(where, ['cat', `/sys/class/net/${device}/address`])).trim();
  }
}

export function takenOf({ fastPath }: Status): Taken {
  const packets = (traffic?: { packets: number }) => traffic?.packets ?? 0;
  return {
    outbound: packets(fastPath?.outbound),
    inbound: packets(fastPath?.inbound),
    local: packets(fastPath?.local),
  };
}

/** What every direction of every data plane is to satisfy. */
export function expectExact({ outbound, inbound }: Status): void {
  for (const { received, packets, drops } of [outbound, inbound])
    expect(received).toBe(packets + Object.values(drops).reduce((sum, each) => sum + each, 0));
}
