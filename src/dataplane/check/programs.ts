/**
 * The eBPF programs that check sources (Documentation/bpf/standardization/instruction-set.rst, bpf-helpers(7)): one for what leaves by the overlay's device, one
 * for what comes in by it, made from the mappings.
 */

import * as abi from '../../core/abi.ts';
import * as bpf from '../../linux/bpf/assembler.ts';
import { SKB_GSO_SEGMENTS, SKB_LENGTH, SKB_MARK, SKB_PROTOCOL } from '../../linux/bpf/skb.ts';
import { IPPROTO_GRE, IPPROTO_UDP } from '../../linux/protocols.ts';
import { type Address, formatPrefix, lowBits, netmask } from '../../mesh/address.ts';
import { type Mapping, mappingsWith } from '../../mesh/mapping.ts';
import { inMapping, SCRATCH, SOURCE, vmOf } from './arithmetic.ts';
import {
  ETHERNET_HEADER,
  headerByte,
  headerHalf,
  headerWord,
  IPV4,
  IPV4_HEADER,
  loadHeader,
  OFFSET,
  SKB,
  TC_ACT_SHOT,
  TC_ACT_UNSPEC,
} from './header-loads.ts';
import { BELIEVED, VERDICT } from './mark.ts';

const UDP_HEADER = 8;
const GRE_HEADER = 4;

/** The counters' words: packets and bytes of a direction, its drops by reason, and an example of each reason. */
const DIRECTION_WORDS = 128;
export const OUTBOUND = 0;
export const INBOUND: number = DIRECTION_WORDS;
export const PACKETS = 0;
export const TOTAL_BYTES = 1;
/** Plus the negated verdict. */
export const DROPS = 2;
/** Plus EXAMPLE_WORDS for each negated verdict: four u32, inner source, inner destination, outer source and 0. An address that is not known is 0. */
export const EXAMPLES = 64;
export const EXAMPLE_WORDS = 2;
export const COUNTER_WORDS: number = 2 * DIRECTION_WORDS;
/** Of a VM: packets and bytes outbound, then inbound. */
export const VM_WORDS = 4;

// On the stack, below its end.
const KEY = -4;

// Registers that calls leave alone, beside those of header-loads.ts; OFFSET is where the inner IPv4 header begins.
const COUNTERS = 7;
/** The remote VM: outbound where the packet goes, inbound where it says that it comes from. */
const VM = 8;
/** With VXLAN: the same register until the VM is known. */
const VERDICT_FOUND = 8;
/** A register until the next call, beside those of arithmetic.ts. */
const DESTINATION = 5;

export interface CheckOptions {
  mappings: readonly Mapping[];
  local: Address;
  isVxlan: boolean;
  /** Bytes of the outer headers that this VM writes; with VXLAN they come later. */
  overhead: number;
}

/** Their descriptors. */
export type Maps = { counters: number; vms: number };

/** Where in the map the VMs of each mapping begin; mappings with the same underlay share theirs. */
export function placesOf(mappings: readonly Mapping[]): number[] {
  const places: number[] = [];
  let end = 0;
  for (const [i, { underlay, vmBits }] of mappings.entries()) {
    const same = mappings.findIndex((other) => formatPrefix(other.underlay) === formatPrefix(underlay));
    places.push(same < i ? (places[same] as number) : end);
    if (same === i) end += 2 ** vmBits;
  }
  return places;
}

/** From a container, or from this VM: the source has to be in our slice, and the destination in the overlay. */
export function egress(options: CheckOptions, maps: Maps): bpf.Line[] {
  const { mappings, local } = options;
  const places = placesOf(mappings);
  const inner = innerHeader(options);
  return [
    ...begin(maps),
    bpf.set(OFFSET, inner),
    ...loadInner(inner),
    ...inOwnSlice(mappings, local, SOURCE, abi.DROP_FOREIGN_SOURCE),
    // The VM that the destination lives on.
    ...inMapping(mappings, DESTINATION, (mapping, i) => [
      ...vmOf(mapping, DESTINATION, VM),
      ...toPlace(mapping, places[i] ?? 0),
      bpf.jump('count'),
    ]),
    ...drop(abi.DROP_NO_MAPPING, OUTBOUND, { inner: true }),
    ...end(OUTBOUND, maps),
  ];
}

/** From another VM: the inner source has to live on it, and the destination in our slice. */
export function ingress(options: CheckOptions, maps: Maps): bpf.Line[] {
  const { mappings, local, isVxlan } = options;
  const places = placesOf(mappings);
  return [
    ...begin(maps),
    ...(isVxlan ? verdictFromMark() : outerFromHeader(local)),
    ...loadInner(innerHeader(options)),
    ...(isVxlan ? [bpf.jumpUnlessEqual(VERDICT_FOUND, BELIEVED, 'spoofed')] : []),
    ...inMapping(mappings, SOURCE, (mapping, i) => [
      ...vmOf(mapping, SOURCE, SCRATCH),
      ...(isVxlan ? [bpf.copy(VM, SCRATCH)] : [bpf.jumpUnlessSame32(SCRATCH, VM, 'spoofed')]),
      ...toPlace(mapping, places[i] ?? 0),
      bpf.jump('believed'),
    ]),
    { label: 'spoofed' },
    ...drop(abi.DROP_SPOOFED_SOURCE, INBOUND, { inner: true, ...(!isVxlan && { outer: true }) }),
    { label: 'believed' },
    ...inOwnSlice(mappings, local, DESTINATION, abi.DROP_FOREIGN_DESTINATION),
    bpf.jump('count'),
    { label: 'foreign' },
    ...drop(abi.DROP_FOREIGN_UNDERLAY, INBOUND, isVxlan ? {} : { outer: true }),
    ...end(INBOUND, maps),
  ];
}

/** Where the inner IPv4 header begins, in what this VM sends, and in what others send that have the same configuration. */
function innerHeader({ isVxlan, overhead }: CheckOptions): number {
  return isVxlan ? ETHERNET_HEADER : overhead;
}

/** The counters; only IPv4 is for us. */
function begin({ counters }: Maps): bpf.Line[] {
  return [
    bpf.copy(SKB, 1),
    bpf.storeDouble(bpf.STACK, KEY - 4, 0),
    ...bpf.loadMap(1, counters),
    bpf.copy(2, bpf.STACK),
    bpf.add(2, KEY),
    bpf.call(bpf.MAP_LOOKUP),
    bpf.jumpUnlessEqual(0, 0, 'counters'),
    bpf.set(0, TC_ACT_SHOT),
    bpf.exit,
    { label: 'counters' },
    bpf.copy(COUNTERS, 0),
    bpf.loadWord(1, SKB, SKB_PROTOCOL),
    bpf.jumpUnlessEqual(1, IPV4, 'not IPv4'),
  ];
}

/** What the program where the underlay's packets come in found (mark.ts), which others no longer see. */
function verdictFromMark(): bpf.Line[] {
  return [
    bpf.loadWord(VERDICT_FOUND, SKB, SKB_MARK),
    bpf.copy(1, VERDICT_FOUND),
    bpf.and32(1, ~VERDICT),
    bpf.storeWord(SKB, SKB_MARK, 1),
    bpf.set(OFFSET, ETHERNET_HEADER),
    bpf.and32(VERDICT_FOUND, VERDICT),
    bpf.jumpIfEqual(VERDICT_FOUND, 0, 'foreign'),
  ];
}

/** The outer source into VM. At the ingress of a GRE device a packet begins with its outer IPv4 header (skb_pop_mac_header in net/ipv4/ip_gre.c). */
function outerFromHeader(local: Address): bpf.Line[] {
  const option = (flag: number): bpf.Line[] => {
    const absent = Symbol('absent');
    return [bpf.copy(2, 1), bpf.and32(2, flag), bpf.jumpIfEqual(2, 0, absent), bpf.add(OFFSET, 4), { label: absent }];
  };
  return [
    bpf.set(OFFSET, 0),
    ...loadHeader(IPV4_HEADER, 0, 'truncated'),
    ...headerWord(VM, 12),
    ...headerByte(OFFSET, 0),
    bpf.and32(OFFSET, 0x0f),
    bpf.shiftLeft(OFFSET, 2),
    ...headerByte(1, 9),
    bpf.jumpUnlessEqual(1, IPPROTO_UDP, 'GRE'),
    bpf.add(OFFSET, UDP_HEADER),
    { label: 'GRE' },
    ...loadHeader(GRE_HEADER, IPV4_HEADER, 'truncated'),
    ...headerHalf(1, 0),
    bpf.add(OFFSET, GRE_HEADER),
    // Checksum, key and sequence number (RFC 2784 §2.1, RFC 2890 §2).
    ...[0x8000, 0x2000, 0x1000].flatMap(option),
    bpf.jumpIfEqual32(VM, Number(local.bits), 'foreign'),
  ];
}

/** The inner source and destination into their registers; `usual` as in loadHeader. */
function loadInner(usual: number): bpf.Line[] {
  return [
    ...loadHeader(IPV4_HEADER, usual, 'truncated'),
    ...headerByte(1, 0),
    bpf.and32(1, 0xf0),
    bpf.jumpUnlessEqual(1, 0x40, 'not IPv4'),
    ...headerByte(1, 9),
    bpf.jumpIfEqual(1, IPPROTO_GRE, 'nested'),
    ...headerWord(SOURCE, 12),
    ...headerWord(DESTINATION, 16),
  ];
}

/** From a VM's address to its place in the map. */
function toPlace({ vmBits }: Mapping, first: number): bpf.Instruction[] {
  return [bpf.and32(VM, Number(lowBits(vmBits))), bpf.add(VM, first)];
}

function inOwnSlice(mappings: readonly Mapping[], local: Address, register: number, verdict: number): bpf.Line[] {
  const slices = mappingsWith(mappings, local).map((mapping) => mapping.sliceOf(local));
  return [
    ...slices.flatMap(({ bits, length }): bpf.Line[] => [
      bpf.copy(SCRATCH, register),
      bpf.and32(SCRATCH, netmask(length)),
      bpf.jumpIfEqual32(SCRATCH, Number(bits), 'own'),
    ]),
    ...drop(verdict, verdict === abi.DROP_FOREIGN_SOURCE ? OUTBOUND : INBOUND, { inner: true }),
    { label: 'own' },
  ];
}

/** Which addresses are in their registers where a packet is dropped: SOURCE and DESTINATION, and VM. */
type Known = { inner?: true; outer?: true };

/** Counts a packet that goes no further, and keeps the addresses that are known as the example of its reason. */
function drop(verdict: number, direction: number, known: Known = {}): bpf.Line[] {
  const at = 8 * (direction + DROPS - verdict);
  const example = 8 * (direction + EXAMPLES - EXAMPLE_WORDS * verdict);
  return [
    ...(known.inner
      ? [bpf.storeWord(COUNTERS, example, SOURCE), bpf.storeWord(COUNTERS, example + 4, DESTINATION)]
      : []),
    ...(known.outer ? [bpf.storeWord(COUNTERS, example + 8, VM)] : []),
    bpf.set(2, 1),
    ...count(at, 2),
    bpf.set(0, TC_ACT_SHOT),
    bpf.exit,
  ];
}

/** Adds a register to a counter; no other processor has it. Register 1 is used. */
function count(at: number, from: number): bpf.Instruction[] {
  return [bpf.loadDouble(1, COUNTERS, at), bpf.addRegister(1, from), bpf.storeDoubleFrom(COUNTERS, at, 1)];
}

/** Counts the packet, for all and for its VM, and lets it through; and the drops that both directions have. */
function end(direction: number, { vms }: Maps): bpf.Line[] {
  return [
    { label: 'count' },
    bpf.storeWord(bpf.STACK, KEY, VM),
    // Register 8 has the packets from here on, 9 the bytes: those of inner packets.
    bpf.loadWord(1, SKB, SKB_LENGTH),
    bpf.subtractRegister(1, OFFSET),
    bpf.copy(OFFSET, 1),
    bpf.loadWord(VM, SKB, SKB_GSO_SEGMENTS),
    bpf.jumpUnlessEqual(VM, 0, 'cut'),
    bpf.set(VM, 1),
    { label: 'cut' },
    ...count(8 * (direction + PACKETS), VM),
    ...count(8 * (direction + TOTAL_BYTES), OFFSET),
    ...bpf.loadMap(1, vms),
    bpf.copy(2, bpf.STACK),
    bpf.add(2, KEY),
    bpf.call(bpf.MAP_LOOKUP),
    // In a plan of more VMs than the map has room for.
    bpf.jumpIfEqual(0, 0, 'through'),
    bpf.addAtomically(0, direction === OUTBOUND ? 0 : 16, VM),
    bpf.addAtomically(0, direction === OUTBOUND ? 8 : 24, OFFSET),
    { label: 'through' },
    bpf.set(0, TC_ACT_UNSPEC),
    bpf.exit,
    { label: 'truncated' },
    ...drop(abi.DROP_TRUNCATED, direction),
    { label: 'not IPv4' },
    ...drop(abi.DROP_NOT_IPV4, direction),
    { label: 'nested' },
    ...drop(abi.DROP_NESTED_GRE, direction),
  ];
}
