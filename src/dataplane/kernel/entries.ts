/**
 * What the kernel has about one remote VM: a route to its slice, the neighbour that the route leads to, and for VXLAN where that one's MAC address lives. The
 * route says what is known about the way: which packets it takes, or that there is none.
 */

import { ipv4Bytes, ipv4Number } from '../../linux/netlink/ipv4.ts';
import { NLM_F_CREATE, NLM_F_REPLACE, type Request, request } from '../../linux/netlink/message.ts';
import {
  AF_BRIDGE,
  type NeighbourRequest,
  NTF_EXT_LEARNED,
  NTF_SELF,
  NUD_PERMANENT,
  NUD_REACHABLE,
  NUD_STALE,
  neighbour,
  RTM_DELNEIGH,
  RTM_NEWNEIGH,
} from '../../linux/netlink/neighbour.ts';
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
} from '../../linux/netlink/route.ts';
import { AF_INET } from '../../linux/netlink/rtnetlink.ts';
import { ROUTE_PROTOCOL } from '../../machine/state.ts';
import { formatMac } from '../../machine/things/link-commands.ts';
import { type Address, formatAddress, ipv4 } from '../../mesh/address.ts';
import type { Mapping } from '../../mesh/mapping.ts';
import { type Slice, Slices } from '../../mesh/slices.ts';
import { macOf, vmOfMac } from './device.ts';
import type { Way } from './ways.ts';

const PUT = NLM_F_CREATE | NLM_F_REPLACE;
/** Every IPv4 host takes 68 bytes (RFC 791 §3.2). */
const MIN_MTU = 68;

export interface EntriesOptions {
  mappings: readonly Mapping[];
  /** This VM. */
  local: Address;
  device: string;
  ifindex: number;
  isVxlan: boolean;
  /** Bytes of all headers around a packet. */
  overhead: number;
}

/** Makes requests. A VM is the u32 number of its underlay address. */
export class Entries {
  readonly #options: EntriesOptions;
  readonly #slices: Slices;

  constructor(options: EntriesOptions) {
    this.#options = options;
    this.#slices = new Slices(options.mappings, options.local);
  }

  /** All entries of a VM, whatever was there before. The routes come last: they need the others. */
  install(vm: number, way: Way = {}): Request[] {
    const what = whatOf(vm);
    return [
      ...this.#forwardings(vm).map((body) => request(RTM_NEWNEIGH, PUT, what, neighbour, body)),
      ...this.#slices.of(vm).map((slice) => request(RTM_NEWNEIGH, PUT, what, neighbour, this.#gateway(slice, vm))),
      ...this.lead(vm, way),
    ];
  }

  /** The routes of a VM, when there is another way to it. */
  lead(vm: number, way: Way): Request[] {
    const slices = this.#slices.of(vm);
    return slices.map((slice) => request(RTM_NEWROUTE, PUT, whatOf(vm), route, this.#route(slice, way)));
  }

  /** The routes go first: without them the kernel asks again. `way` is what they say. */
  remove(vm: number, way: Way = {}): Request[] {
    const what = whatOf(vm);
    const slices = this.#slices.of(vm);
    return [
      ...slices.map((slice) =>
        request(RTM_DELROUTE, 0, what, route, { ...this.#route(slice, way), metrics: undefined }),
      ),
      ...slices.map((slice) => request(RTM_DELNEIGH, 0, what, neighbour, this.#gateway(slice, vm))),
      ...this.#forwardings(vm).map((body) => request(RTM_DELNEIGH, 0, what, neighbour, body)),
    ];
  }

  /** How many entries a VM is to have. */
  count(vm: number): number {
    return 2 * this.#slices.of(vm).length + (this.#options.isVxlan ? 1 : 0);
  }

  /** Lets packets go that wait for `dst` on `vm`, whose route is there: a neighbour for as long as it takes. */
  answer(dst: Uint8Array, vm: number): Request[] {
    const { ifindex } = this.#options;
    const body = { family: AF_INET, ifindex, state: NUD_REACHABLE, dst, lladdr: this.#lladdr(vm) };
    return [request(RTM_NEWNEIGH, PUT, `neighbour ${dst.join('.')}`, neighbour, body), this.refuse(dst)];
  }

  /** Forgets the neighbour `dst`. Who waits for it is told that it is unreachable (neigh_invalidate in net/core/neighbour.c). */
  refuse(dst: Uint8Array): Request {
    const body = { family: AF_INET, ifindex: this.#options.ifindex, dst };
    return request(RTM_DELNEIGH, 0, `neighbour ${dst.join('.')}`, neighbour, body);
  }

  /** The remote VM that an overlay address lives on; undefined if nobody can have that address. */
  vmOf(dst: Uint8Array | undefined): number | undefined {
    const address = ipv4Number(dst);
    return address === undefined ? undefined : this.#slices.vmOf(address);
  }

  /** The same for any address of a VM's slice. */
  vmNear(dst: Uint8Array | undefined): number | undefined {
    const address = ipv4Number(dst);
    return address === undefined ? undefined : this.#slices.vmNear(address);
  }

  /** Whether an overlay address is that of the VM itself: the neighbour that stays. */
  isGateway(dst: Uint8Array | undefined, vm: number): boolean {
    const address = ipv4Number(dst);
    return this.#slices.of(vm).some(({ gateway }) => gateway === address);
  }

  /** The VM of such a neighbour, if both of its addresses are that VM's. */
  vmAt(dst: Uint8Array | undefined, lladdr: Uint8Array | undefined): number | undefined {
    const vm = this.vmOf(dst);
    return vm !== undefined && this.isGateway(dst, vm) && this.#vmIn(lladdr) === vm ? vm : undefined;
  }

  /** The VM of an entry in the forwarding database, if its MAC address lives where it should. */
  vmForwarded(lladdr: Uint8Array | undefined, at: Uint8Array | undefined): number | undefined {
    const vm = this.#vmIn(lladdr);
    return vm === ipv4Number(at) ? vm : undefined;
  }

  /** The VM to whose slice a route of ours leads. */
  vmBehind({ dst, dstLength, priority }: Route): number | undefined {
    const to = ipv4Number(dst) ?? 0;
    const vm = this.#slices.vmNear(to);
    if (vm === undefined) return undefined;
    const isSlice = ({ address, length, number }: Slice) =>
      address === to && length === dstLength && number === (priority ?? 0);
    return this.#slices.of(vm).some(isSlice) ? vm : undefined;
  }

  /** Whether a route to a VM's slice says what is known about the way. */
  isLed({ gateway, type, metrics }: Route, vm: number, way: Way): boolean {
    const at = ipv4Number(gateway);
    const leads = this.#slices.of(vm).some((slice) => gatewayOf(slice, way) === at);
    return type === RTN_UNICAST && leads && metrics?.mtu === this.#mtu(way);
  }

  removeRoute(found: Route): Request {
    return request(RTM_DELROUTE, 0, 'route', route, found);
  }

  /** What `install` does, as commands for an operator. */
  commands(vm: number): string[] {
    const { device, isVxlan } = this.#options;
    const text = (address: number) => formatAddress(ipv4(address));
    const lladdr = isVxlan ? formatMac(macOf(vm)) : text(vm);
    const slices = this.#slices.of(vm);
    const stale = `nud stale extern_learn protocol ${ROUTE_PROTOCOL}`;
    return [
      ...(isVxlan ? [`bridge fdb replace ${lladdr} dev ${device} dst ${text(vm)} self permanent`] : []),
      ...slices.map(({ gateway }) => `ip neighbour replace ${text(gateway)} lladdr ${lladdr} dev ${device} ${stale}`),
      ...slices.map(({ address, length, number, gateway, source }) => {
        const to = `${text(address)}/${length} via ${text(gateway)} dev ${device} onlink`;
        return `ip route replace ${to}${source === undefined ? '' : ` src ${text(source)}`} proto ${ROUTE_PROTOCOL} metric ${number}`;
      }),
    ];
  }

  #lladdr(vm: number): Uint8Array {
    return this.#options.isVxlan ? macOf(vm) : ipv4Bytes(vm);
  }

  #vmIn(lladdr: Uint8Array | undefined): number | undefined {
    return this.#options.isVxlan ? vmOfMac(lladdr) : ipv4Number(lladdr);
  }

  #gateway({ gateway }: Slice, vm: number): NeighbourRequest {
    return {
      family: AF_INET,
      ifindex: this.#options.ifindex,
      state: NUD_STALE,
      flags: NTF_EXT_LEARNED,
      dst: ipv4Bytes(gateway),
      lladdr: this.#lladdr(vm),
      protocol: ROUTE_PROTOCOL,
    };
  }

  #forwardings(vm: number): NeighbourRequest[] {
    const { ifindex, isVxlan } = this.#options;
    const flags = { family: AF_BRIDGE, ifindex, state: NUD_PERMANENT, flags: NTF_SELF };
    return isVxlan ? [{ ...flags, lladdr: macOf(vm), dst: ipv4Bytes(vm) }] : [];
  }

  /** Its metric means nothing, but each VM's is another: the kernel looks for routes alike by metric, not by gateway (fib_find_info in net/ipv4/fib_semantics.c). */
  #route(slice: Slice, way: Way): RouteRequest {
    const { address, length, number, source } = slice;
    const mtu = this.#mtu(way);
    return {
      ...{ family: AF_INET, dstLength: length, table: RT_TABLE_MAIN, protocol: ROUTE_PROTOCOL },
      ...{ scope: RT_SCOPE_UNIVERSE, type: RTN_UNICAST, flags: RTNH_F_ONLINK },
      dst: ipv4Bytes(address),
      oif: this.#options.ifindex,
      gateway: ipv4Bytes(gatewayOf(slice, way)),
      priority: number,
      prefsrc: source === undefined ? undefined : ipv4Bytes(source),
      ...(mtu !== undefined && { metrics: { mtu } }),
    };
  }

  /** Bytes of the longest inner packet that goes whole; undefined if it is that of the device. */
  #mtu({ pathMtu }: Way): number | undefined {
    return pathMtu === undefined ? undefined : Math.max(pathMtu - this.#options.overhead, MIN_MTU);
  }
}

/**
 * The neighbour that a slice's route leads to. Where there is no way to the VM, it is one that nobody can be: the kernel asks for it, and all who wait are
 * told that they cannot get there. An unreachable route would tell it half as often (ip_error in net/ipv4/route.c has a limit of its own), and would
 * outlive the device.
 */
function gatewayOf({ address, gateway }: Slice, { unreachable }: Way): number {
  return unreachable === undefined ? gateway : address;
}

function whatOf(vm: number): string {
  return `VM ${formatAddress(ipv4(vm))}`;
}
