/**
 * The rules of the barrier: what a packet has to come by to be a tunnel, a container's, or an ICMP message
 * that is learnt from; and what containers may reach of the VMs in plain.
 */
import { GRE_UDP_PORT } from '../../core/abi.ts';
import type { Device } from '../../linux/netfilter/packet.ts';
import {
  accept,
  address,
  comesBy,
  comesByKind,
  comesByWayBack,
  destinationIs,
  drop,
  fragmentationNeeded,
  goto,
  icmpType,
  jump,
  laterFragment,
  moreFragments,
  nextHopMtuFrom,
  notOfUsers,
  otherVxlan,
  port,
  protocol,
  quotedDestination,
  returns,
  type Statement,
  sourceBits,
  tcpAnswer,
  udpPortFrom,
} from '../../linux/netfilter/statement.ts';
import { LOOPBACK } from '../../linux/netlink/link.ts';
import { NF_INET_LOCAL_OUT, NF_INET_PRE_ROUTING } from '../../linux/netlink/nf-tables.ts';
import { IPPROTO_GRE, VXLAN_PORT } from '../../linux/protocols.ts';
import type { Access } from '../../mesh/access.ts';
import { type Address, formatPrefix, lowBits, netmask, type Prefix } from '../../mesh/address.ts';
import { type Mapping, mappingsWith } from '../../mesh/mapping.ts';

/** What the rules follow from. */
export interface BarrierFacts {
  /** The overlay's device; its index is 0 while there is none. */
  device: Device;
  local: Address;
  mappings: readonly Mapping[];
  /** The devices by which other VMs are reached. */
  uplinks: readonly Device[];
  access: readonly Access[];
  /** Of VXLAN. */
  vni?: number;
  /** Who may send GRE in UDP from this VM; undefined if that cannot be told from what the kernel sends. */
  users?: readonly number[];
  /** The first port that the kernel gives to sockets by itself. */
  firstDynamicPort: number;
}

/** Names of what is dropped, as `status` and the comments of the rules have them. */
export const DROPS = {
  'forged-outer': 'tunnels that did not come by a device on the way to other VMs',
  'forged-container': 'packets with an overlay source from a device that does not lead there',
  'plain-overlay': 'packets from the underlay with an overlay address and no tunnel',
  'container-access': "packets of containers to VMs' addresses that container-access does not list",
  broadcast: 'packets of containers that are for all',
  icmp: 'ICMP errors from where this VM does not learn',
  'local-user': 'GRE in UDP that an unprivileged user of this VM sent to another VM',
} as const;
export type DropName = keyof typeof DROPS;

export interface BarrierRule {
  statements: readonly Statement[];
  /** Of a rule that drops. */
  drops?: DropName;
}

export interface BarrierChain {
  name: string;
  /** Where packets come to it by themselves. */
  hook?: { number: number; name: string; priority: number };
  rules: readonly BarrierRule[];
}

/**
 * Before fragments are put together for connection tracking (NF_IP_PRI_CONNTRACK_DEFRAG, -400, in
 * <linux/netfilter_ipv4.h>): a forged fragment must not become part of an honest packet. Not at forward,
 * because a chain there keeps the kernel from cutting super-packets for us.
 */
const PRIORITY = -450;
/** RFC 1112 §4; RFC 919 §7. */
const MULTICAST: Prefix = { width: 32, bits: 0xe0000000n, length: 4 };
const NOBODY: Prefix = { width: 32, bits: 0n, length: 32 };
const LIMITED_BROADCAST: Prefix = { width: 32, bits: 0xffffffffn, length: 32 };
/** Of containers, these alone may tell the VM something. */
const [ECHO_REPLY, UNREACHABLE, REDIRECT, ECHO, TIME_EXCEEDED, PARAMETER_PROBLEM] = [0, 3, 5, 8, 11, 12];
/** Linux locks a smaller path MTU, also for what it forwards (ip_rt_min_pmtu in net/ipv4/route.c). */
const MIN_PATH_MTU = 552;

/** The loopback device is the first of each network namespace. */
const LO: Device = { name: 'lo', index: LOOPBACK };

const rule = (...statements: Statement[]): BarrierRule => ({ statements });
const dropping = (drops: DropName, ...statements: Statement[]): BarrierRule => ({ statements, drops });

/** `hasFib`: whether the kernel can be asked for routes (nft_fib). The rules that most packets pass are few. */
export function barrierChains(facts: BarrierFacts, hasFib: boolean): BarrierChain[] {
  const { device, uplinks, users } = facts;
  const places = placesOf(facts);
  const { overlays, underlays } = places;
  const prerouting = [
    ...overlays.map((prefix) => rule(address('saddr', prefix), goto('inner'))),
    ...uplinks.map((uplink) => rule(comesBy(uplink), goto('underlay'))),
    // Super-packets that the kernel cuts for us.
    ...(device.index > 0 ? [rule(comesBy(device), accept)] : []),
    rule(comesBy(LO), accept),
    // Another device by which this very VM is reached.
    ...(hasFib ? underlays : []).map((prefix) =>
      rule(address('saddr', prefix), comesByWayBack(true), goto('underlay')),
    ),
    rule(goto('elsewhere')),
  ];
  return [
    { name: 'underlay', rules: fromUnderlay(places) },
    { name: 'tunnels', rules: tunnels(facts) },
    { name: 'errors', rules: errors(places) },
    { name: 'vm', rules: toVm(facts, places) },
    { name: 'others', rules: toOtherVms(facts) },
    { name: 'arrived', rules: arrived(facts) },
    { name: 'overlay', rules: places.own.map((own) => rule(address('daddr', own), goto('arrived'))) },
    { name: 'inner', rules: fromOverlay(facts, places, hasFib) },
    { name: 'outer', rules: foreignTunnels(facts, places) },
    { name: 'elsewhere', rules: elsewhere(facts, places) },
    {
      name: 'prerouting',
      hook: { number: NF_INET_PRE_ROUTING, name: 'prerouting', priority: PRIORITY },
      rules: prerouting,
    },
    ...(users ? [{ ...OUTPUT, rules: fromLocalUsers(users, underlays) }] : []),
  ];
}

const OUTPUT = { name: 'output', hook: { number: NF_INET_LOCAL_OUT, name: 'output', priority: PRIORITY } };

interface Places {
  overlays: Prefix[];
  underlays: Prefix[];
  /** This VM's underlay address. */
  local: Prefix;
  /** This VM's overlay addresses. */
  own: Prefix[];
}

function placesOf({ mappings, local }: BarrierFacts): Places {
  const only = (one: Address): Prefix => ({ ...one, length: one.width });
  const unique = (prefixes: Prefix[]) => [...new Map(prefixes.map((each) => [formatPrefix(each), each])).values()];
  return {
    overlays: unique(mappings.map(({ overlay }) => overlay)),
    underlays: unique(mappings.map(({ underlay }) => underlay)),
    local: only(local),
    own: mappingsWith(mappings, local).map((mapping) => only(mapping.addressOf(local, 1n))),
  };
}

/** By a device on the way to other VMs, with a source that is not the overlay's. */
function fromUnderlay({ overlays }: Places): BarrierRule[] {
  return overlays.map((prefix) => dropping('plain-overlay', address('daddr', prefix)));
}

/**
 * What came out of the overlay's device and is for this VM itself. The data plane has checked its source. The
 * VMs themselves (index 1) are trusted, but for what Linux would believe too much.
 */
function arrived({ mappings }: BarrierFacts): BarrierRule[] {
  const vms = mappings.map(({ overlay, containerBits }) =>
    sourceBits(overlay.bits | 1n, (netmask(overlay.length) | Number(lowBits(containerBits))) >>> 0),
  );
  return [
    dropping('icmp', icmpType(REDIRECT)),
    ...vms.map((isVm) => rule(isVm, fragmentationNeeded, nextHopMtuFrom(MIN_PATH_MTU), accept)),
    dropping('icmp', fragmentationNeeded),
    ...vms.map((isVm) => rule(isVm, accept)),
    rule(goto('vm')),
  ];
}

/** With an overlay source: out of the overlay's device, in plain from the underlay, or from a container. */
function fromOverlay({ device, uplinks }: BarrierFacts, places: Places, hasFib: boolean): BarrierRule[] {
  const { overlays, underlays, local, own } = places;
  return [
    ...(device.index > 0 ? [rule(comesBy(device), goto('overlay'))] : []),
    ...uplinks.map((uplink) => dropping('plain-overlay', comesBy(uplink))),
    ...(hasFib ? [dropping('forged-container', comesByWayBack(false))] : []),
    ...own.map((prefix) => rule(address('daddr', prefix), goto('vm'))),
    ...overlays.map((prefix) => rule(address('daddr', prefix), accept)),
    rule(address('daddr', local), goto('vm')),
    ...underlays.map((prefix) => rule(address('daddr', prefix), goto('others'))),
    // Sockets of this machine that listen on all addresses are the same behind each of them.
    ...(hasFib ? [rule(destinationIs('local'), goto('vm'))] : learnt()),
    // So are they behind what is for all, and no container is to talk to all machines.
    dropping('broadcast', address('daddr', MULTICAST)),
    dropping('broadcast', address('daddr', LIMITED_BROADCAST)),
    ...(hasFib ? [dropping('broadcast', destinationIs('broadcast'))] : []),
  ];
}

/** To this VM from a container or itself. Without connection tracking, which costs, and whose table can be filled. */
function toVm(facts: BarrierFacts, { local, own }: Places): BarrierRule[] {
  return [
    rule(comesBy(LO), accept),
    // Answers to connections that this VM began.
    rule(tcpAnswer, accept),
    dropping('icmp', icmpType(REDIRECT)),
    dropping('icmp', fragmentationNeeded),
    // What is learnt of tunnels comes from the underlay.
    dropping('icmp', address('daddr', local), icmpType(UNREACHABLE)),
    ...[ECHO_REPLY, UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM].map((type) => rule(icmpType(type), accept)),
    ...own.map((prefix) => rule(address('daddr', prefix), icmpType(ECHO), accept)),
    // The first fragment decides about all.
    rule(laterFragment, accept),
    rule(jump('tunnels')),
    // Answers, as it seems.
    rule(udpPortFrom(facts.firstDynamicPort), accept),
    ...facts.access.flatMap((access) => listed(access, true)),
    dropping('container-access'),
  ];
}

/** To another address of the underlay. */
function toOtherVms(facts: BarrierFacts): BarrierRule[] {
  return [
    // Answers of ports that the VM hands on to containers (DNAT).
    rule(tcpAnswer, accept),
    // Behind masquerading they would be this VM's own.
    rule(jump('tunnels')),
    ...facts.access.flatMap((access) => listed(access, false)),
    dropping('container-access'),
  ];
}

function listed({ to, port: number }: Access, isVm: boolean): BarrierRule[] {
  if (to === 'vm' && !isVm) return [];
  const where = typeof to === 'string' ? [] : [address('daddr', to)];
  if (number === undefined) return [rule(...where, accept)];
  const ports = (['tcp', 'udp'] as const).map((of) => rule(...where, port(of, number), accept));
  return [...ports, ...(isVm ? [] : [rule(...where, laterFragment, accept)])];
}

/** Drops tunnels, and comes back with all else. */
function tunnels({ vni }: BarrierFacts): BarrierRule[] {
  return [
    dropping('forged-outer', protocol(IPPROTO_GRE)),
    dropping('forged-outer', port('udp', GRE_UDP_PORT)),
    // Others use the port, too. A fragment that is cut before the network's number is dropped.
    ...(vni === undefined
      ? []
      : [rule(otherVxlan(VXLAN_PORT, vni), returns), dropping('forged-outer', port('udp', VXLAN_PORT))]),
  ];
}

/**
 * By any other device, such as docker's: only tunnels of the mesh, and ICMP that says something about it, are
 * looked at.
 */
function elsewhere({ vni }: BarrierFacts, { underlays }: Places): BarrierRule[] {
  return [
    // Linux takes what is for all from nobody, too. DHCP does so, but its servers listen at bridges.
    dropping('broadcast', comesByKind('veth'), address('saddr', NOBODY)),
    rule(protocol(IPPROTO_GRE), goto('outer')),
    rule(port('udp', GRE_UDP_PORT), goto('outer')),
    ...(vni === undefined ? [] : [rule(port('udp', VXLAN_PORT), goto('outer'))]),
    // Neither part may become part of an honest packet.
    ...underlays.map((prefix) => dropping('forged-outer', address('saddr', prefix), moreFragments)),
    ...underlays.map((prefix) => dropping('forged-outer', address('saddr', prefix), laterFragment)),
    ...learnt(),
  ];
}

function foreignTunnels({ vni }: BarrierFacts, { underlays, local }: Places): BarrierRule[] {
  return [
    // Of another daemon, whose super-packets the kernel cuts: they come out of its TUN device.
    rule(address('saddr', local), comesByKind('tun'), accept),
    ...(vni === undefined ? [] : [rule(otherVxlan(VXLAN_PORT, vni), accept)]),
    ...underlays.flatMap((prefix) => [
      dropping('forged-outer', address('saddr', prefix)),
      dropping('forged-outer', address('daddr', prefix)),
    ]),
  ];
}

/** What Linux or the core would learn from. */
function learnt(): BarrierRule[] {
  return [UNREACHABLE, REDIRECT, TIME_EXCEEDED, PARAMETER_PROBLEM].map((type) => rule(icmpType(type), jump('errors')));
}

/** ICMP errors about packets to the mesh. One in fragments, which hides what it is about, is never honest. */
function errors({ overlays, underlays }: Places): BarrierRule[] {
  return [
    dropping('icmp', moreFragments),
    ...[...underlays, ...overlays].map((prefix) => dropping('icmp', quotedDestination(prefix))),
  ];
}

function fromLocalUsers(users: readonly number[], underlays: readonly Prefix[]): BarrierRule[] {
  return underlays.map((prefix) =>
    dropping('local-user', port('udp', GRE_UDP_PORT), address('daddr', prefix), notOfUsers(users)),
  );
}

/** The expressions of a rule; one that drops counts on from so many packets and bytes. */
export function expressionsOf({ statements, drops }: BarrierRule, packets = 0, bytes = 0) {
  const end = drops === undefined ? [] : drop(packets, bytes).expressions;
  return [...statements.flatMap(({ expressions }) => expressions), ...end];
}

/** The rules as nft(8) takes them. */
export function barrierText(table: string, chains: readonly BarrierChain[]): string[] {
  return [
    ...[`table ip ${table}`, `delete table ip ${table}`, `table ip ${table} {`],
    ...chains.flatMap(({ name, hook, rules }) => [
      `  chain ${name} {`,
      ...(hook ? [`    type filter hook ${hook.name} priority ${hook.priority}; policy accept;`] : []),
      ...rules.map((each) => `    ${ruleText(each)}`),
      '  }',
    ]),
    '}',
  ];
}

function ruleText({ statements, drops }: BarrierRule): string {
  const end = drops === undefined ? [] : [drop().text, `comment "${drops}"`];
  return [...statements.map(({ text }) => text), ...end].join(' ');
}
