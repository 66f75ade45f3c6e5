/** What the kernel has about one remote VM: a route to its slice, the neighbour that the route leads to, and for VXLAN where that one's MAC address lives. */
import { type Address, contains, formatAddress, formatPrefix, ipv4 } from '../address.ts';
import { covering, type Mapping } from '../mapping.ts';
import { addressBytes, addressOf, ipv4Bytes, ipv4Number } from '../netlink/ipv4.ts';
import { NLM_F_CREATE, NLM_F_REPLACE, type Request, request } from '../netlink/message.ts';
import {
  type NeighbourRequest,
  NTF_EXT_LEARNED,
  NTF_SELF,
  NUD_PERMANENT,
  NUD_REACHABLE,
  NUD_STALE,
  neighbour,
  RTM_DELNEIGH,
  RTM_NEWNEIGH,
} from '../netlink/neighbour.ts';
import {
  type Route,
  type RouteRequest,
  RT_SCOPE_UNIVERSE,
  RT_TABLE_MAIN,
  RTM_DELROUTE,
  RTM_NEWROUTE,
  RTN_UNICAST,
  RTNH_F_ONLINK,
  route,
} from '../netlink/route.ts';
import { AF_INET } from '../netlink/rtnetlink.ts';
import { ROUTE_PROTOCOL } from '../setup/steps.ts';
import { formatMac } from '../setup/words.ts';
import { macOf } from './device.ts';

/** <linux/socket.h>: the family of entries in forwarding databases. */
export const AF_BRIDGE = 7;
const PUT = NLM_F_CREATE | NLM_F_REPLACE;
/** Bytes before the VM's address in a MAC address. */
const MAC_PREFIX = 2;

export interface EntriesOptions {
  mappings: readonly Mapping[];
  /** This VM. */
  local: Address;
  device: string;
  ifindex: number;
  isVxlan: boolean;
}

/** Makes requests. A VM is the u32 number of its underlay address, and its mapping the one whose underlay prefix holds it. */
export class Entries {
  readonly #options: EntriesOptions;

  constructor(options: EntriesOptions) {
    this.#options = options;
  }

  /** Whatever was there before; each message is complete by itself. The route comes last: it needs the others. */
  install(vm: number): Request[] {
    const { isVxlan } = this.#options;
    return this.#mappingsOf(vm).flatMap((mapping, i) => [
      ...(isVxlan && i === 0 ? [request(RTM_NEWNEIGH, PUT, this.#what(vm), neighbour, this.#forwarding(vm))] : []),
      request(RTM_NEWNEIGH, PUT, this.#what(vm), neighbour, this.#gateway(mapping, vm)),
      request(RTM_NEWROUTE, PUT, this.#what(vm), route, this.#route(mapping, vm)),
    ]);
  }

  /** The route goes first: without it the kernel asks again. */
  remove(vm: number): Request[] {
    const { isVxlan } = this.#options;
    return this.#mappingsOf(vm).flatMap((mapping, i) => [
      request(RTM_DELROUTE, 0, this.#what(vm), route, this.#route(mapping, vm)),
      request(RTM_DELNEIGH, 0, this.#what(vm), neighbour, this.#gateway(mapping, vm)),
      ...(isVxlan && i === 0 ? [request(RTM_DELNEIGH, 0, this.#what(vm), neighbour, this.#forwarding(vm))] : []),
    ]);
  }

  /** Lets packets go that wait for `dst` on `vm`, whose route is there: the neighbour, as long as it takes. */
  answer(dst: Uint8Array, vm: number): Request[] {
    const body = {
      family: AF_INET,
      ifindex: this.#options.ifindex,
      dst,
      lladdr: this.#lladdr(vm),
      state: NUD_REACHABLE,
    };
    return [request(RTM_NEWNEIGH, PUT, `neighbour ${dst.join('.')}`, neighbour, body), ...this.refuse(dst)];
  }

  /** Forgets the neighbour `dst`. Who waits for it is told that it is unreachable (neigh_invalidate in net/core/neighbour.c). */
  refuse(dst: Uint8Array): Request[] {
    const body = { family: AF_INET, ifindex: this.#options.ifindex, dst };
    return [request(RTM_DELNEIGH, 0, `neighbour ${dst.join('.')}`, neighbour, body)];
  }

  /** How many entries the VM is to have. */
  count(vm: number): number {
    return 2 * this.#mappingsOf(vm).length + (this.#options.isVxlan ? 1 : 0);
  }

  /** The remote VM that an overlay address lives on; undefined if nobody can have that address. */
  vmOf(dst: Uint8Array | undefined): number | undefined {
    const address = addressOf(dst);
    const mapping = address && covering(this.#options.mappings, address);
    if (!mapping) return undefined;
    const { kind, vm } = mapping.explain(address);
    if (kind === 'slice' || kind === 'reserved' || mapping.holdsBroadcast(vm)) return undefined;
    return vm.bits === this.#options.local.bits ? undefined : Number(vm.bits);
  }

  isGateway(dst: Uint8Array, vm: number): boolean {
    return this.#mappingsOf(vm).some((mapping) => ipv4Number(dst) === Number(mapping.addressOf(ipv4(vm), 1n).bits));
  }

  /** The VM of a neighbour, if both of its addresses are that VM's. */
  vmAt(dst: Uint8Array | undefined, lladdr: Uint8Array | undefined): number | undefined {
    const vm = this.vmOf(dst);
    return dst && vm !== undefined && this.isGateway(dst, vm) && this.vmIn(lladdr) === vm ? vm : undefined;
  }

  /** The VM in a link-layer address; with VXLAN in a MAC address, if that lives at `at`. */
  vmIn(lladdr: Uint8Array | undefined, at?: Uint8Array): number | undefined {
    if (!this.#options.isVxlan) return ipv4Number(lladdr);
    const vm = ipv4Number(lladdr?.subarray(MAC_PREFIX));
    if (vm === undefined || String(macOf(vm)) !== String(lladdr)) return undefined;
    return at === undefined || ipv4Number(at) === vm ? vm : undefined;
  }

  /** The VM that a route of ours leads to, if it is as it should be. */
  vmBehind({ dst, dstLength, gateway }: Route): number | undefined {
    const vm = this.vmOf(gateway);
    if (!gateway || vm === undefined || !this.isGateway(gateway, vm)) return undefined;
    const slice = this.#mappingsOf(vm).map((mapping) => mapping.sliceOf(ipv4(vm)));
    return slice.some(({ bits, length }) => length === dstLength && Number(bits) === ipv4Number(dst)) ? vm : undefined;
  }

  removeRoute(found: Route): Request {
    return request(RTM_DELROUTE, 0, 'route', route, found);
  }

  /** The same, for an operator. */
  commands(vm: number): string[] {
    const { device, isVxlan } = this.#options;
    const address = formatAddress(ipv4(vm));
    const lladdr = isVxlan ? formatMac(macOf(vm)) : address;
    return this.#mappingsOf(vm).flatMap((mapping, i) => {
      const gateway = formatAddress(mapping.addressOf(ipv4(vm), 1n));
      const source = this.#source(mapping);
      return [
        ...(isVxlan && i === 0 ? [`bridge fdb replace ${lladdr} dev ${device} dst ${address} self permanent`] : []),
        `ip neighbour replace ${gateway} lladdr ${lladdr} dev ${device} nud stale extern_learn protocol ${ROUTE_PROTOCOL}`,
        `ip route replace ${formatPrefix(mapping.sliceOf(ipv4(vm)))} via ${gateway} dev ${device} onlink${source ? ` src ${formatAddress(source)}` : ''} proto ${ROUTE_PROTOCOL}`,
      ];
    });
  }

  #what(vm: number): string {
    return `VM ${formatAddress(ipv4(vm))}`;
  }

  #mappingsOf(vm: number): Mapping[] {
    return this.#options.mappings.filter((mapping) => contains(mapping.underlay, ipv4(vm)));
  }

  #lladdr(vm: number): Uint8Array {
    return this.#options.isVxlan ? macOf(vm) : ipv4Bytes(vm);
  }

  /** Our own address in the mapping, if we have one. */
  #source(mapping: Mapping): Address | undefined {
    const { local } = this.#options;
    return contains(mapping.underlay, local) ? mapping.addressOf(local, 1n) : undefined;
  }

  #gateway(mapping: Mapping, vm: number): NeighbourRequest {
    return {
      family: AF_INET,
      ifindex: this.#options.ifindex,
      state: NUD_STALE,
      flags: NTF_EXT_LEARNED,
      dst: addressBytes(mapping.addressOf(ipv4(vm), 1n)),
      lladdr: this.#lladdr(vm),
      protocol: ROUTE_PROTOCOL,
    };
  }

  #forwarding(vm: number): NeighbourRequest {
    const { ifindex } = this.#options;
    return {
      ...{ family: AF_BRIDGE, ifindex, state: NUD_PERMANENT, flags: NTF_SELF },
      ...{ lladdr: macOf(vm), dst: ipv4Bytes(vm) },
    };
  }

  #route(mapping: Mapping, vm: number): RouteRequest {
    const slice = mapping.sliceOf(ipv4(vm));
    const source = this.#source(mapping);
    return {
      ...{ family: AF_INET, dstLength: slice.length, table: RT_TABLE_MAIN, protocol: ROUTE_PROTOCOL },
      ...{ scope: RT_SCOPE_UNIVERSE, type: RTN_UNICAST, flags: RTNH_F_ONLINK },
      dst: addressBytes(slice),
      oif: this.#options.ifindex,
      gateway: addressBytes(mapping.addressOf(ipv4(vm), 1n)),
      prefsrc: source && addressBytes(source),
    };
  }
}
