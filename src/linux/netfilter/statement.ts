/**
 * What rules of our own are made of. Each statement is known in two ways: as the text of nft(8), and as the
 * expressions that nft(8) makes of that text.
 */
import { formatAddress, formatPrefix, netmask, type Prefix } from '../../mesh/address.ts';
import { addressBytes, ipv4Bytes } from '../netlink/ipv4.ts';
import { type Expression, NF_ACCEPT, NF_DROP } from '../netlink/nf-tables.ts';
import { RTN_BROADCAST, RTN_LOCAL } from '../netlink/route.ts';
import { IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP } from '../protocols.ts';
import type { Device } from './packet.ts';

export interface Statement {
  text: string;
  expressions: Expression[];
}

// <linux/netfilter/nf_tables.h>
const REGISTER = 1;
const VERDICT = 0;
const EQUAL = 0;
const NOT_EQUAL = 1;
const AT_LEAST = 5;
const META = { iif: 4, skuid: 10, l4proto: 16, iifkind: 26 } as const;
const NETWORK = 1;
const TRANSPORT = 2;
const FIB = { device: 1, type: 3 } as const;
const FIB_SOURCE = 1;
const FIB_DESTINATION = 2;
const FIB_IN = 8;
const FIB_PRESENT = 32;
const JUMP = -3;
const GOTO = -4;
const RETURN = -5;
const NAME_SIZE = 16;

// Offsets in the IPv4 header (RFC 791 §3.1).
const FRAGMENT = 6;
const PROTOCOL = 9;
const ADDRESS = { saddr: 12, daddr: 16 } as const;

const uint8 = (value: number) => Uint8Array.of(value);
const uint16 = (value: number) => Uint8Array.of(value >> 8, value);
/** In host order, here little-endian, as the kernel keeps what is no part of a packet. */
const host32 = (value: number) => new Uint8Array(Uint32Array.of(value).buffer);

function load(base: number, offset: number, len: number): Expression {
  return { name: 'payload', data: { dreg: REGISTER, base, offset, len } };
}

function compare(value: Uint8Array, op = EQUAL): Expression {
  return { name: 'cmp', data: { sreg: REGISTER, op, data: { value } } };
}

function mask(value: Uint8Array): Expression {
  const xor = { value: new Uint8Array(value.length) };
  return { name: 'bitwise', data: { sreg: REGISTER, dreg: REGISTER, len: value.length, mask: { value }, xor } };
}

function meta(key: keyof typeof META): Expression {
  return { name: 'meta', data: { dreg: REGISTER, key: META[key] } };
}

/** Whether the four bytes at an offset are inside a prefix; only the bytes that count are loaded. */
function inPrefix(base: number, offset: number, prefix: Prefix): Expression[] {
  const bytes = addressBytes(prefix);
  const size = prefix.length / 8;
  if (Number.isInteger(size)) return [load(base, offset, size), compare(bytes.subarray(0, size))];
  return [load(base, offset, 4), mask(ipv4Bytes(netmask(prefix.length))), compare(bytes)];
}

/** A name as the kernel compares it: with zeroes behind. */
function nameBytes(name: string): Uint8Array {
  const bytes = new Uint8Array(NAME_SIZE);
  new TextEncoder().encodeInto(name, bytes);
  return bytes;
}

/** By its index: names take three times as long to compare. */
export function comesBy({ name, index }: Device): Statement {
  return { text: `iif "${name}"`, expressions: [meta('iif'), compare(host32(index))] };
}

/** The kind of the device that it came by, such as `tun` (Linux 5.0). */
export function comesByKind(kind: string): Statement {
  return { text: `meta iifkind "${kind}"`, expressions: [meta('iifkind'), compare(nameBytes(kind))] };
}

export function address(which: 'saddr' | 'daddr', prefix: Prefix): Statement {
  const text = prefix.length === prefix.width ? formatAddress(prefix) : formatPrefix(prefix);
  return { text: `ip ${which} ${text}`, expressions: inPrefix(NETWORK, ADDRESS[which], prefix) };
}

/** Whether the source has these bits where the mask has ones. */
export function sourceBits(bits: bigint, ones: number): Statement {
  const value = ipv4Bytes(Number(bits));
  const wanted = ipv4Bytes(ones);
  return {
    text: `ip saddr & ${wanted.join('.')} == ${value.join('.')}`,
    expressions: [load(NETWORK, ADDRESS.saddr, 4), mask(wanted), compare(value)],
  };
}

/**
 * Whether a packet to its source would leave by the device that it came by (RFC 3704 §2.2); of several next
 * hops, by any.
 */
export function comesByWayBack(is: boolean): Statement {
  const flags = FIB_SOURCE | FIB_IN | FIB_PRESENT;
  return {
    text: `fib saddr . iif oif ${is ? 'exists' : 'missing'}`,
    expressions: [{ name: 'fib', data: { dreg: REGISTER, result: FIB.device, flags } }, compare(host32(is ? 1 : 0))],
  };
}

/** Whether the destination is an address of this machine, or the broadcast address of one of its networks. */
export function destinationIs(type: 'local' | 'broadcast'): Statement {
  return {
    text: `fib daddr type ${type}`,
    expressions: [
      { name: 'fib', data: { dreg: REGISTER, result: FIB.type, flags: FIB_DESTINATION } },
      compare(host32(type === 'local' ? RTN_LOCAL : RTN_BROADCAST)),
    ],
  };
}

export function protocol(number: number): Statement {
  return { text: `ip protocol ${number}`, expressions: [load(NETWORK, PROTOCOL, 1), compare(uint8(number))] };
}

function layer4(number: number): Expression[] {
  return [meta('l4proto'), compare(uint8(number))];
}

/** Bits of the field with flags and fragment offset, any of which is set. */
function fragmentBits(bits: number): Statement {
  return {
    text: `ip frag-off & ${bits} != 0`,
    expressions: [load(NETWORK, FRAGMENT, 2), mask(uint16(bits)), compare(uint16(0), NOT_EQUAL)],
  };
}

/** A fragment behind the first: it has no ports. */
export const laterFragment: Statement = fragmentBits(0x1fff);
/** A fragment behind which more follow. */
export const moreFragments: Statement = fragmentBits(0x2000);

export function port(of: 'tcp' | 'udp', number: number): Statement {
  const kind = of === 'tcp' ? IPPROTO_TCP : IPPROTO_UDP;
  return {
    text: `${of} dport ${number}`,
    expressions: [...layer4(kind), load(TRANSPORT, 2, 2), compare(uint16(number))],
  };
}

export function udpPortFrom(number: number): Statement {
  return {
    text: `udp dport >= ${number}`,
    expressions: [...layer4(IPPROTO_UDP), load(TRANSPORT, 2, 2), compare(uint16(number), AT_LEAST)],
  };
}

/** VXLAN of another network: behind the UDP header flags come first (RFC 7348 §5). */
export function otherVxlan(number: number, vni: number): Statement {
  const bytes = Uint8Array.of(vni >> 16, vni >> 8, vni);
  const { text, expressions } = port('udp', number);
  return {
    text: `${text} @th,96,24 != ${vni}`,
    expressions: [...expressions, load(TRANSPORT, 12, 3), compare(bytes, NOT_EQUAL)],
  };
}

/** TCP, but not the first segment of a connection: SYN without ACK. */
export const tcpAnswer: Statement = {
  text: 'tcp flags & (fin | syn | rst | ack) != syn',
  expressions: [...layer4(IPPROTO_TCP), load(TRANSPORT, 13, 1), mask(uint8(0x17)), compare(uint8(0x02), NOT_EQUAL)],
};

export function icmpType(type: number): Statement {
  return {
    text: `icmp type ${type}`,
    expressions: [...layer4(IPPROTO_ICMP), load(TRANSPORT, 0, 1), compare(uint8(type))],
  };
}

/** Fragmentation needed (RFC 1191): type 3, code 4. */
export const fragmentationNeeded: Statement = {
  text: 'icmp type 3 icmp code 4',
  expressions: [...layer4(IPPROTO_ICMP), load(TRANSPORT, 0, 2), compare(uint16(0x0304))],
};

/** The MTU in fragmentation needed. */
export function nextHopMtuFrom(least: number): Statement {
  return { text: `@th,48,16 >= ${least}`, expressions: [load(TRANSPORT, 6, 2), compare(uint16(least), AT_LEAST)] };
}

/** Where the packet was going that an ICMP error quotes. */
export function quotedDestination(prefix: Prefix): Statement {
  const offset = 24;
  const bits = prefix.length % 8 === 0 ? prefix.length : 32;
  const number = (value: Prefix['bits']) => `0x${(value >> BigInt(32 - bits)).toString(16)}`;
  const ones = prefix.length % 8 === 0 ? '' : ` & 0x${(netmask(prefix.length) >>> 0).toString(16)} ==`;
  return {
    text: `@th,${8 * offset},${bits}${ones} ${number(prefix.bits)}`,
    expressions: inPrefix(TRANSPORT, offset, prefix),
  };
}

/** The packet was sent by a socket of another user than these. What has no socket is not meant. */
export function notOfUsers(users: readonly number[]): Statement {
  return {
    text: users.map((user) => `meta skuid != ${user}`).join(' '),
    expressions: users.flatMap((user) => [meta('skuid'), compare(host32(user), NOT_EQUAL)]),
  };
}

export const accept: Statement = verdict('accept', NF_ACCEPT);
export const returns: Statement = verdict('return', RETURN);
const dropVerdict = verdict('drop', NF_DROP);
export const jump = (chain: string): Statement => verdict(`jump ${chain}`, JUMP, chain);
export const goto = (chain: string): Statement => verdict(`goto ${chain}`, GOTO, chain);

/** Drops, and counts what is dropped. */
export function drop(packets = 0, bytes = 0): Statement {
  const count: Expression = { name: 'counter', data: { bytes, packets } };
  return { text: `counter ${dropVerdict.text}`, expressions: [count, ...dropVerdict.expressions] };
}

function verdict(text: string, code: number, chain?: string): Statement {
  const data = { verdict: { code: code >>> 0, ...(chain !== undefined && { chain }) } };
  return { text, expressions: [{ name: 'immediate', data: { dreg: VERDICT, data } }] };
}
