/** Two VMs with containers, a host on the underlay that is no VM, and what they send for the tests of the barrier. */
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { DropName } from '../../src/machine/barrier/rules.ts';
import { icmpMessage, ipv4Around } from '../packet.ts';
import { PATIENCE, type Plane, Vms } from './vms.ts';

const INJECT = fileURLToPath(new URL('inject.mjs', import.meta.url));
const number = (address: string) => address.split('.').reduce((all, part) => all * 256 + Number(part), 0);
/** Containers by the last number of their address, and their VM. */
const CONTAINERS = { c91: 'a', c92: 'a', d91: 'b' } as const;

export const A = '192.168.16.32';
export const B = '192.168.16.33';
/** Of a VM that there is not. */
export const OTHER = '192.168.16.40';
export const OWN_A = '10.16.32.1';
export const OWN_B = '10.16.33.1';
export const C91 = '10.16.32.91';
export const C92 = '10.16.32.92';
export const D91 = '10.16.33.91';
export const HOST = '192.168.66.6';
/** An address of VM a that is neither overlay nor underlay, at a bridge such as docker's, and a container there. */
export const DOCKER = '172.17.0.1';
const DOCKERS = '172.17.0.2';

interface Ends {
  from: string;
  to: string;
  /** Flags and fragment offset. */
  flags?: number;
  id?: number;
}

export const ip = ({ from, to, ...rest }: Ends, protocol: number, payload: ArrayLike<number>) =>
  ipv4Around({ source: number(from), destination: number(to), protocol, flags: 0, ...rest }, payload);

export function udp(ends: Ends, port: number, payload: ArrayLike<number> = [1, 2, 3, 4]) {
  const length = 8 + payload.length;
  return ip(ends, 17, [0xc3, 0x50, port >> 8, port & 255, length >> 8, length & 255, 0, 0, ...Array.from(payload)]);
}

export const syn = (ends: Ends, port: number, flags = 0x02) =>
  ip(ends, 6, [0xc3, 0x50, port >> 8, port & 255, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 1, 0, 0, 0, 0, 0]);

export const gre = (ends: Ends, inner: ArrayLike<number>) => ip(ends, 47, [0, 0, 8, 0, ...Array.from(inner)]);
export const greUdp = (ends: Ends, inner: ArrayLike<number>) => udp(ends, 4754, [0, 0, 8, 0, ...Array.from(inner)]);

export function vxlan(ends: Ends, inner: ArrayLike<number>, vni = 1) {
  const ethernet = [2, 0, ...to4(ends.to), 2, 0, ...to4(ends.from), 8, 0];
  return udp(ends, 4789, [8, 0, 0, 0, vni >> 16, (vni >> 8) & 255, vni & 255, 0, ...ethernet, ...Array.from(inner)]);
}
const to4 = (address: string) => address.split('.').map(Number);

/** An ICMP error about a packet. */
export const icmp = (ends: Ends, type: number, code: number, quoted: ArrayLike<number>, mtu = 0) =>
  ip(ends, 1, icmpMessage(type, code, mtu, quoted));

export class BarrierVms extends Vms {
  static async open(plane: Plane): Promise<BarrierVms> {
    const vms = await new BarrierVms(await Lab.open(), plane, ['a', 'b']).joined();
    await vms.#attach();
    return vms;
  }

  async #attach(): Promise<void> {
    const { lab } = this;
    await lab.ip(undefined, [`address add ${HOST}/16 dev underlay`, 'netns add dockers']);
    for (const [name, vm] of Object.entries(CONTAINERS)) {
      const address = `10.16.${this.number(vm)}.${name.slice(1)}`;
      await lab.ip(undefined, [`netns add ${name}`]);
      await lab.ip(vm, [
        `link add ${name} type veth peer name eth0 netns ${name}`,
        `link set ${name} up`,
        `route add ${address}/32 dev ${name}`,
      ]);
      const gateway = this.overlay(vm);
      await this.#inside(name, `${address}/32`, gateway);
    }
    await lab.ip('a', [
      'link add docker0 type bridge',
      `address add ${DOCKER}/16 dev docker0`,
      'link add port type veth peer name eth0 netns dockers',
      'link set port master docker0 up',
      'link set docker0 up',
    ]);
    await this.#inside('dockers', `${DOCKERS}/16`, DOCKER);
    // Nothing but the barrier is in the way.
    for (const vm of this.names) {
      const quiet = `for d in /proc/sys/net/ipv4/conf/*; do echo 0 >$d/rp_filter; echo 1 >$d/forwarding; done`;
      await lab.must(vm, ['sh', '-c', quiet]);
    }
  }

  async #inside(name: string, address: string, gateway: string): Promise<void> {
    await this.lab.ip(name, [
      'link set lo up',
      `address add ${address} dev eth0`,
      'link set eth0 mtu 1400 up',
      `route replace ${gateway} dev eth0`,
      `route add default via ${gateway}`,
    ]);
    const script = 'for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$f; done';
    await this.lab.must(name, ['sh', '-c', script]);
  }

  /** Sends a packet as it is; `to` is where it is to be routed, its own destination if that is not said. */
  async inject(where: string | undefined, packet: Uint8Array, to = [...packet.subarray(16, 20)].join('.')) {
    const line = `${Buffer.from(packet).toString('hex')}\n`;
    expect(await this.lab.must(where, [process.execPath, INJECT, to], line)).toBe('1\n');
  }

  async drops(vm: string): Promise<Partial<Record<DropName, number>>> {
    return (await this.status(vm)).barrier?.drops ?? {};
  }

  /** What a VM's barrier dropped meanwhile, when it has dropped `count` packets more. */
  async dropsOf(vm: string, work: () => Promise<void>, count = 1): Promise<Partial<Record<DropName, number>>> {
    const sum = (drops: object) => Object.values(drops).reduce((all: number, each: number) => all + each, 0);
    const before = await this.drops(vm);
    await work();
    await expect.poll(async () => sum(await this.drops(vm)), PATIENCE).toBeGreaterThanOrEqual(sum(before) + count);
    const after = Object.entries(await this.drops(vm)) as [DropName, number][];
    const more = after.map(([name, packets]) => [name, packets - (before[name] ?? 0)] as const);
    return Object.fromEntries(more.filter(([, packets]) => packets > 0));
  }

  async rules(vm: string, table = 'inlay-inlay0'): Promise<string> {
    return (await this.lab.run(vm, ['nft', 'list', 'table', 'ip', table])).stdout;
  }
}
