/**
 * From a container: to the underlay, with the outer headers that the core would have put, or straight to another container of this
 * VM. Runs where packets come in at the host's end of each container's veth.
 */

import { GRE_UDP_PORT } from '../../core/abi.ts';
import * as bpf from '../../linux/bpf/assembler.ts';
import { R0, R1, R2, R3, R4, R5, STACK } from '../../linux/bpf/assembler.ts';
import { ROOM_ENCAP_GRE, ROOM_ENCAP_IPV4, ROOM_ENCAP_UDP, SKB_IFINDEX } from '../../linux/bpf/skb.ts';
import { AF_INET } from '../../linux/native.ts';
import { IPPROTO_GRE, IPPROTO_UDP } from '../../linux/protocols.ts';
import { lowBits } from '../../mesh/address.ts';
import { inMapping, placesOf, unlessNoVm, unlessReserved, vmOf } from '../check/arithmetic.ts';
import { ETHERNET_HEADER, IPV4_HEADER } from '../check/header-loads.ts';
import {
  address,
  adjustRoom,
  begin,
  checkHeader,
  checkInner,
  checkLength,
  checkLink,
  copyHeader,
  count,
  DESTINATION,
  end,
  fold,
  HEADERS,
  KEY,
  LINK,
  LONGEST,
  lookUp,
  makeFrame,
  measure,
  outerLength,
  PACKET,
  pointTo,
  pointToCounts,
  putBytes,
  putFrame,
  SKB,
  SOURCE,
  slotKey,
  totalLength,
  unlessFresh,
  unlessSyn,
} from './packet.ts';
import type { ProgramOptions } from './programs.ts';
import {
  COUNT_LOCAL,
  COUNT_OUTBOUND,
  type MapFds,
  NEXT_HOP_LOOKED_UP,
  NEXT_HOP_VM,
  SETTING_LIMIT,
  SETTING_NEXT_HOP,
  SETTING_UPLINK,
  SLOT_LINK,
  VM_HEARD,
  VM_LIMIT,
  VM_OUTBOUND,
  VM_OUTBOUND_FRESH,
} from './state.ts';

const INNER = ETHERNET_HEADER;

// Registers that calls leave alone, beside those of packet.ts: the VM that the packet goes to, and its number, then its record;
// or the destination, then its slot. Once the headers are made, VM has the counters.
const VM = bpf.R8;
const RECORD = bpf.R9;
const SLOT = bpf.R9;
const COUNTS = bpf.R8;

export function outbound(options: ProgramOptions, maps: MapFds): bpf.Line[] {
  return [
    ...begin(maps.settings),
    ...pointTo(INNER + IPV4_HEADER),
    ...findVm(options),
    { label: 'remote' },
    ...checkContainer(options, maps),
    ...toUnderlay(options, maps),
    { label: 'own slice' },
    ...checkContainer(options, maps),
    ...straightAcross(options, maps),
    ...end(),
  ];
}

/** Goes to 'remote' with VM and its number, to 'own slice', or to 'pass'. */
function findVm({ mappings, local }: ProgramOptions): bpf.Line[] {
  const places = placesOf(mappings);
  const [destination, vm] = [VM, RECORD];
  return [
    ...address(destination, INNER + DESTINATION),
    ...inMapping(mappings, destination, (mapping, i) => [
      ...vmOf(mapping, destination, vm),
      bpf.jumpIfEqual32(vm, Number(local.bits), 'own slice'),
      ...unlessNoVm(mapping, vm, 'pass'),
      ...unlessReserved(mapping, destination, 'pass'),
      bpf.copy(VM, vm),
      bpf.and32(RECORD, Number(lowBits(mapping.vmBits))),
      bpf.add(RECORD, places[i] as number),
      bpf.jump('remote'),
    ]),
    bpf.jump('pass'),
  ];
}

/** Goes to 'pass' unless the packet is sound, and its source is the container behind this device. */
function checkContainer({ mappings, local }: ProgramOptions, { slots }: MapFds): bpf.Line[] {
  return [
    ...checkHeader(INNER),
    ...checkLength(),
    ...checkInner(INNER),
    ...address(R1, INNER + SOURCE),
    ...slotKey(mappings, local, R1),
    bpf.storeWord(STACK, KEY, R1),
    ...lookUp(slots),
    bpf.loadWord(R1, R0, SLOT_LINK),
    bpf.loadWord(R2, SKB, SKB_IFINDEX),
    bpf.jumpUnlessSame32(R1, R2, 'pass'),
  ];
}

function toUnderlay(options: ProgramOptions, { settings, vms, counts }: MapFds): bpf.Line[] {
  const { encapsulation, clampMss } = options;
  const outer = outerLength(encapsulation, options);
  const narrower = Symbol('limit');
  return [
    bpf.storeWord(STACK, KEY, RECORD),
    ...lookUp(vms),
    bpf.copy(RECORD, R0),
    bpf.loadWord(R1, RECORD, VM_HEARD),
    bpf.jumpIfEqual(R1, 0, 'pass'),
    ...measure(INNER, outer),
    ...bpf.loadMapValue(R2, settings),
    bpf.loadWord(R1, R2, SETTING_UPLINK),
    bpf.storeWord(STACK, LINK, R1),
    bpf.loadWord(R1, R2, SETTING_LIMIT),
    bpf.jumpIfAboveRegister(R3, R1, 'pass'),
    bpf.loadWord(R1, RECORD, VM_LIMIT),
    bpf.jumpIfEqual(R1, 0, narrower),
    bpf.jumpIfAboveRegister(R3, R1, 'pass'),
    { label: narrower },
    ...(clampMss ? unlessSyn(INNER) : []),
    ...unlessFresh(settings, RECORD, VM_OUTBOUND_FRESH),
    ...outerHeaders(options),
    ...copyHeader(INNER, HEADERS + outer, { isWhole: true }),
    ...pointToCounts(COUNTS, counts),
    ...adjustRoom(outer, ROOM_ENCAP_IPV4 | (encapsulation === 'gre' ? ROOM_ENCAP_GRE : ROOM_ENCAP_UDP)),
    ...putBytes(INNER, HEADERS, outer + IPV4_HEADER, 'broken'),
    ...count(COUNTS, COUNT_OUTBOUND, { record: RECORD, offset: VM_OUTBOUND }),
    ...leave(settings),
  ];
}

/** struct bpf_redir_neigh, over the outer headers, so that the address in it is the VM's. */
const NEXT_HOP = HEADERS + DESTINATION - 4;
const NEXT_HOP_ADDRESS = NEXT_HOP + 4;
const NEXT_HOP_SIZE = 20;

/**
 * To the uplink: the kernel looks for the neighbour, and puts the Ethernet header. That it also looks for the way takes longer than
 * all of this program, so it does so only where packets to VMs go different ways.
 */
function leave(settings: number): bpf.Line[] {
  const [vm, known, redirect] = [Symbol('to the VM'), Symbol('known'), Symbol('redirect')];
  return [
    ...bpf.loadMapValue(R2, settings),
    bpf.loadWord(R1, R2, SETTING_NEXT_HOP),
    bpf.jumpUnlessEqual(R1, NEXT_HOP_LOOKED_UP, known),
    bpf.set(R2, 0),
    bpf.set(R3, 0),
    bpf.jump(redirect),
    { label: known },
    bpf.jumpIfEqual32(R1, NEXT_HOP_VM, vm),
    bpf.storeWord(STACK, NEXT_HOP_ADDRESS, R1),
    { label: vm },
    bpf.storeWordOf(STACK, NEXT_HOP, AF_INET),
    bpf.copy(R2, STACK),
    bpf.add(R2, NEXT_HOP),
    bpf.set(R3, NEXT_HOP_SIZE),
    { label: redirect },
    bpf.loadWord(R1, STACK, LINK),
    bpf.set(R4, 0),
    bpf.call(bpf.REDIRECT_NEIGH),
    bpf.exit,
  ];
}

/** Ports of the flow (RFC 8086 §3.2): the dynamic ones, but one that Azure keeps for itself. */
const FIRST_PORT = 0xc000;
const AZURE_PORT = 65330;
const DONT_FRAGMENT = 0x4000;
const TYPE_OF_SERVICE = 1;
const TIME_TO_LIVE = 8;
const GRE_IPV4 = 0x0800;
const GRE_KEY_PRESENT = 0x2000;

/** Makes the outer headers on the stack. */
function outerHeaders(options: ProgramOptions): bpf.Line[] {
  const { encapsulation, key, local, ttl } = options;
  const isUdp = encapsulation === 'gre-udp';
  const outer = outerLength(encapsulation, options);
  const protocol = isUdp ? IPPROTO_UDP : IPPROTO_GRE;
  const at = (offset: number) => HEADERS + offset;
  const gre = at(isUdp ? IPV4_HEADER + 8 : IPV4_HEADER);
  const [tos, total, sum, life] = [R1, R4, R5, R3];
  const constant = 0x4500 + DONT_FRAGMENT + protocol + (Number(local.bits) >>> 16) + (Number(local.bits) & 0xffff);
  return [
    ...(isUdp ? sourcePort(at(IPV4_HEADER)) : []),
    ...outerTos(options, tos),
    ...totalLength(total, INNER),
    bpf.add(total, outer),
    // The checksum: the ones-complement sum of the 16-bit words.
    bpf.set(sum, constant),
    bpf.addRegister(sum, tos),
    bpf.addRegister(sum, total),
    bpf.copy(R2, VM),
    bpf.shiftRight(R2, 16),
    bpf.addRegister(sum, R2),
    bpf.copy(R2, VM),
    bpf.and32(R2, 0xffff),
    bpf.addRegister(sum, R2),
    ...(ttl === 'inherit'
      ? [bpf.loadByte(life, PACKET, INNER + TIME_TO_LIVE), bpf.add(life, -1)]
      : [bpf.set(life, ttl)]),
    bpf.copy(R2, life),
    bpf.shiftLeft(R2, 8),
    bpf.addRegister(sum, R2),
    ...fold(sum),
    ...fold(sum),
    bpf.xor(sum, 0xffff),
    bpf.fromNetwork16(sum),
    bpf.shiftLeft(tos, 8),
    bpf.or32(tos, 0x45),
    bpf.storeHalf(STACK, at(0), tos),
    bpf.copy(R2, total),
    bpf.fromNetwork16(R2),
    bpf.storeHalf(STACK, at(2), R2),
    // Identification 0: what is never fragmented needs none (RFC 6864 §4.1).
    bpf.storeWordOf(STACK, at(4), network32(DONT_FRAGMENT)),
    bpf.or32(life, protocol << 8),
    bpf.storeHalf(STACK, at(8), life),
    bpf.storeHalf(STACK, at(10), sum),
    bpf.storeWordOf(STACK, at(12), network32(Number(local.bits))),
    bpf.copy(R2, VM),
    bpf.fromNetwork32(R2),
    bpf.storeWord(STACK, at(16), R2),
    ...(isUdp
      ? [
          bpf.storeHalfOf(STACK, at(22), network16(GRE_UDP_PORT)),
          bpf.add(total, -IPV4_HEADER),
          bpf.fromNetwork16(total),
          bpf.storeHalf(STACK, at(24), total),
          // Without a checksum, as the kernel's segmentation would leave it.
          bpf.storeHalfOf(STACK, at(26), 0),
        ]
      : []),
    bpf.storeWordOf(STACK, gre, greWord(key)),
    ...(key === undefined ? [] : [bpf.storeWordOf(STACK, gre + 4, network32(key))]),
  ];
}

/** The outer type of service (RFC 2983, RFC 6040 §4.1) into a register. */
function outerTos({ dscp, ecn }: ProgramOptions, to: number): bpf.Line[] {
  const kept = (dscp === 'uniform' ? 0xfc : 0) | (ecn === 'normal' ? 0x03 : 0);
  return [
    bpf.loadByte(to, PACKET, INNER + TYPE_OF_SERVICE),
    bpf.and32(to, kept),
    ...(dscp === 'uniform' ? [] : [bpf.or32(to, dscp << 2)]),
  ];
}

/** Puts the outer source port on the stack: one for each flow, and the same for all fragments of a packet. */
function sourcePort(at: number): bpf.Line[] {
  const free = Symbol('port');
  return [
    bpf.copy(R1, SKB),
    bpf.call(bpf.GET_HASH_RECALC),
    bpf.and32(R0, 0xffff - FIRST_PORT),
    bpf.or32(R0, FIRST_PORT),
    bpf.jumpUnlessEqual(R0, AZURE_PORT, free),
    bpf.add(R0, 1),
    { label: free },
    bpf.fromNetwork16(R0),
    bpf.storeHalf(STACK, at, R0),
  ];
}

/** To a container of this VM: its frame, as the kernel's routing would make it. */
function straightAcross({ mappings, local }: ProgramOptions, { slots, counts }: MapFds): bpf.Line[] {
  return [
    ...address(R1, INNER + DESTINATION),
    ...slotKey(mappings, local, R1),
    bpf.storeWord(STACK, KEY, R1),
    ...lookUp(slots),
    bpf.copy(SLOT, R0),
    bpf.loadWord(R1, SLOT, SLOT_LINK),
    bpf.jumpIfEqual(R1, 0, 'pass'),
    bpf.loadWord(R2, SKB, SKB_IFINDEX),
    bpf.xor32(R2, R1),
    bpf.jumpIfEqual(R2, 0, 'pass'),
    bpf.storeWord(STACK, LINK, R1),
    ...measure(INNER),
    bpf.storeWord(STACK, LONGEST, R3),
    ...checkLink(0),
    ...makeFrame(SLOT, INNER, false),
    ...pointToCounts(COUNTS, counts),
    ...putFrame('pass'),
    ...count(COUNTS, COUNT_LOCAL),
    bpf.loadWord(R1, STACK, LINK),
    bpf.set(R2, 0),
    bpf.call(bpf.REDIRECT_PEER),
    bpf.exit,
  ];
}

/** Flags and protocol of the GRE header that is sent, and taken, as they lie in memory. */
export function greWord(key: number | undefined): number {
  return network32(((key === undefined ? 0 : GRE_KEY_PRESENT) << 16) | GRE_IPV4);
}

/** A number as it lies in memory in network order. */
export function network32(value: number): number {
  return (network16(value & 0xffff) << 16) | network16(value >>> 16);
}

export function network16(value: number): number {
  return ((value & 0xff) << 8) | (value >>> 8);
}
