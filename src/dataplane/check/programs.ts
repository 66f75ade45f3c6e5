/**
 * The eBPF programs that check sources (Documentation/bpf/standardization/instruction-set.rst, bpf-helpers(7)): one for what leaves by the overlay's device, one
 * for what comes in by it, made from the mappings.
 */

import * as abi from '../../core/abi.ts';
import * as bpf from '../../linux/bpf/assembler.ts';
import { SKB_GSO_SIZE, SKB_MARK } from '../../linux/bpf/skb.ts';
import type { Label } from '../../linux/labels.ts';
import { IPPROTO_GRE, IPPROTO_UDP } from '../../linux/protocols.ts';
import { type Address, lowBits, netmask } from '../../mesh/address.ts';
import { type Mapping, mappingsWith } from '../../mesh/mapping.ts';
import { inMapping, placesOf, SCRATCH, SOURCE, unlessNoVm, unlessReserved, vmOf } from './arithmetic.ts';
import { begin, DESTINATION, drop, end, INBOUND, type Maps, OUTBOUND, VM } from './counts.ts';
import {
  ETHERNET_HEADER,
  headerByte,
  headerHalf,
  headerWord,
  IPV4_HEADER,
  loadHeader,
  OFFSET,
  SKB,
} from './header-loads.ts';
import { BELIEVED, VERDICT } from './mark.ts';

const UDP_HEADER = 8;
const GRE_HEADER = 4;
const IPV4_SOURCE = 12;
const IPV4_DESTINATION = 16;
/** The first two bytes of the MAC addresses that VMs have. */
const MAC_PREFIX = 0x0200;

/** With VXLAN: the same register until the VM is known. */
const VERDICT_FOUND = 8;
/** A register until the next call: the inner protocol. */
const PROTOCOL = 0;

export interface CheckOptions {
  mappings: readonly Mapping[];
  local: Address;
  isVxlan: boolean;
  /** Bytes of the outer headers that this VM writes; with VXLAN they come later. */
  overhead: number;
  /** Without them, no segment is too small. */
  floors?: SegmentFloors | undefined;
}

/** The smallest segments into which super-packets may be cut, by their protocol: bytes of payload. */
interface SegmentFloors {
  udp: number;
  others: number;
}

/**
 * From a container, or from this VM: the source has to be in our slice, the destination in the overlay, and the packet about to go to the VM of its
 * destination. Routes, neighbours and redirects (ICMP) may have led it elsewhere.
 */
export function egress(options: CheckOptions, maps: Maps): bpf.Line[] {
  const { mappings, local, isVxlan, floors } = options;
  const places = placesOf(mappings);
  const inner = innerHeader(options);
  return [
    ...begin(maps),
    bpf.set(OFFSET, 0),
    ...loadHeader(inner + IPV4_HEADER, 0, 'truncated'),
    ...(isVxlan ? nextFromEthernet() : headerWord(VM, IPV4_DESTINATION)),
    bpf.set(OFFSET, inner),
    ...readInner(inner),
    ...inOwnSlice(mappings, local, SOURCE, 'foreign source', 'foreign source'),
    ...inMapping(mappings, DESTINATION, (mapping, i) => [
      ...vmOf(mapping, DESTINATION, SCRATCH),
      bpf.jumpIfEqual32(SCRATCH, Number(local.bits), 'own slice'),
      ...unlessNoVm(mapping, SCRATCH, 'reserved'),
      ...unlessReserved(mapping, DESTINATION, 'reserved'),
      bpf.jumpIfEqual(PROTOCOL, IPPROTO_GRE, 'nested'),
      bpf.jumpUnlessSame32(SCRATCH, VM, 'diverted'),
      ...toPlace(mapping, places[i] ?? 0),
      bpf.jump('on its way'),
    ]),
    ...drop(abi.DROP_NO_MAPPING, OUTBOUND, { inner: true }),
    { label: 'foreign source' },
    ...drop(abi.DROP_FOREIGN_SOURCE, OUTBOUND, { inner: true }),
    { label: 'own slice' },
    ...drop(abi.DROP_OWN_SLICE, OUTBOUND, { inner: true }),
    { label: 'diverted' },
    ...drop(abi.DROP_DIVERTED, OUTBOUND, { inner: true, outer: true }),
    { label: 'on its way' },
    ...(floors ? unlessTiny(floors) : []),
    ...end(OUTBOUND, maps),
  ];
}

/** From another VM: the inner source has to live on it, and the destination in our slice. */
export function ingress(options: CheckOptions, maps: Maps): bpf.Line[] {
  const { mappings, local, isVxlan } = options;
  const places = placesOf(mappings);
  const inner = innerHeader(options);
  return [
    ...begin(maps),
    ...(isVxlan ? verdictFromMark() : outerFromHeader(local)),
    ...loadHeader(IPV4_HEADER, inner, 'truncated'),
    ...readInner(0),
    ...(isVxlan ? [bpf.jumpUnlessEqual(VERDICT_FOUND, BELIEVED, 'spoofed')] : []),
    ...inMapping(mappings, SOURCE, (mapping, i) => [
      ...vmOf(mapping, SOURCE, SCRATCH),
      // The program that left the verdict has looked at more.
      ...(isVxlan
        ? [bpf.copy(VM, SCRATCH)]
        : [
            bpf.jumpUnlessSame32(SCRATCH, VM, 'spoofed'),
            ...unlessNoVm(mapping, SCRATCH, 'spoofed'),
            ...unlessReserved(mapping, SOURCE, 'spoofed'),
          ]),
      ...toPlace(mapping, places[i] ?? 0),
      bpf.jump('believed'),
    ]),
    { label: 'spoofed' },
    ...(isVxlan ? [] : unlessForeign(mappings)),
    { label: 'of the underlay' },
    ...drop(abi.DROP_SPOOFED_SOURCE, INBOUND, { inner: true, ...(!isVxlan && { outer: true }) }),
    { label: 'foreign destination' },
    ...drop(abi.DROP_FOREIGN_DESTINATION, INBOUND, { inner: true }),
    { label: 'foreign' },
    ...drop(abi.DROP_FOREIGN_UNDERLAY, INBOUND, isVxlan ? {} : { outer: true }),
    { label: 'believed' },
    ...inOwnSlice(mappings, local, DESTINATION, 'reserved', 'foreign destination'),
    bpf.jumpIfEqual(PROTOCOL, IPPROTO_GRE, 'nested'),
    ...end(INBOUND, maps),
  ];
}

/** Where the inner IPv4 header begins, in what this VM sends, and in what others send that have the same configuration. */
function innerHeader({ isVxlan, overhead }: CheckOptions): number {
  return isVxlan ? ETHERNET_HEADER : overhead;
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

/** The VM in the destination of an Ethernet header, 0 if it is no VM's (macOf in ../kernel/device.ts): a packet may be about to go to many. */
function nextFromEthernet(): bpf.Line[] {
  return [
    ...headerWord(VM, 2),
    ...headerHalf(SCRATCH, 0),
    bpf.jumpIfEqual(SCRATCH, MAC_PREFIX, "a VM's"),
    bpf.set(VM, 0),
    { label: "a VM's" },
  ];
}

/** What the inner header says into registers; `at` is where it is in what was loaded. */
function readInner(at: number): bpf.Line[] {
  return [
    ...headerByte(1, at),
    bpf.and32(1, 0xf0),
    bpf.jumpUnlessEqual(1, 0x40, 'not IPv4'),
    ...headerByte(PROTOCOL, at + 9),
    ...headerWord(SOURCE, at + IPV4_SOURCE),
    ...headerWord(DESTINATION, at + IPV4_DESTINATION),
  ];
}

/** Behind the program the kernel cuts a super-packet (GSO) into segments of this size. */
function unlessTiny({ udp, others }: SegmentFloors): bpf.Line[] {
  return [
    bpf.loadWord(SCRATCH, SKB, SKB_GSO_SIZE),
    bpf.jumpIfEqual(SCRATCH, 0, 'whole'),
    bpf.jumpIfEqual(PROTOCOL, IPPROTO_UDP, 'UDP'),
    bpf.jumpUnlessBelow(SCRATCH, others, 'whole'),
    bpf.jump('tiny'),
    { label: 'UDP' },
    bpf.jumpUnlessBelow(SCRATCH, udp, 'whole'),
    { label: 'tiny' },
    ...drop(abi.DROP_TINY_SEGMENTS, OUTBOUND, { inner: true }),
    { label: 'whole' },
  ];
}

/** Goes on to 'of the underlay' if a VM can have the outer source, else to 'foreign'. */
function unlessForeign(mappings: readonly Mapping[]): bpf.Line[] {
  return [
    ...mappings.flatMap((mapping): bpf.Line[] => {
      const next = Symbol('next underlay');
      return [
        bpf.copy(SCRATCH, VM),
        bpf.and32(SCRATCH, netmask(mapping.underlay.length)),
        bpf.jumpUnlessEqual32(SCRATCH, Number(mapping.underlay.bits), next),
        ...unlessNoVm(mapping, VM, next),
        bpf.jump('of the underlay'),
        { label: next },
      ];
    }),
    bpf.jump('foreign'),
  ];
}

/** From a VM's address to its place in the map. */
function toPlace({ vmBits }: Mapping, first: number): bpf.Instruction[] {
  return [bpf.and32(VM, Number(lowBits(vmBits))), bpf.add(VM, first)];
}

/** Goes to one label if the address is in our slice but nobody's, to another if it is in no slice of ours. */
function inOwnSlice(
  mappings: readonly Mapping[],
  local: Address,
  register: number,
  reserved: Label,
  foreign: Label,
): bpf.Line[] {
  const own = Symbol('own');
  return [
    ...mappingsWith(mappings, local).flatMap((mapping): bpf.Line[] => {
      const { bits, length } = mapping.sliceOf(local);
      const next = Symbol('next slice');
      return [
        bpf.copy(SCRATCH, register),
        bpf.and32(SCRATCH, netmask(length)),
        bpf.jumpUnlessEqual32(SCRATCH, Number(bits), next),
        ...unlessReserved(mapping, register, reserved),
        bpf.jump(own),
        { label: next },
      ];
    }),
    bpf.jump(foreign),
    { label: own },
  ];
}
