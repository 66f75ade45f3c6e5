/** What both programs do with a packet: look at its headers, measure it, and change or put them. */
import { LEAST_TCP_SEGMENT } from '../../core/abi.ts';
import * as bpf from '../../linux/bpf/assembler.ts';
import { R0, R1, R2, R3, R4, R5, STACK } from '../../linux/bpf/assembler.ts';
import {
  ROOM_AT_MAC,
  ROOM_FIXED_GSO,
  ROOM_NO_CSUM_RESET,
  SKB_DATA,
  SKB_DATA_END,
  SKB_GSO_SIZE,
  SKB_LENGTH,
  SKB_PACKET_TYPE,
  SKB_PROTOCOL,
  SKB_VLAN_PRESENT,
} from '../../linux/bpf/skb.ts';
import type { Label } from '../../linux/labels.ts';
import { IPPROTO_GRE, IPPROTO_TCP } from '../../linux/protocols.ts';
import { type Address, lowBits, netmask } from '../../mesh/address.ts';
import { type Mapping, mappingsWith } from '../../mesh/mapping.ts';
import { ETHERNET_HEADER, IPV4, IPV4_HEADER, TC_ACT_SHOT, TC_ACT_UNSPEC } from '../check/header-loads.ts';
import type { Format, ProgramOptions } from './programs.ts';
import { SETTING_ALIVE, SETTING_UNTIL, SLOT_ADDRESSES, slotPlacesOf } from './state.ts';

// Registers that calls leave alone.
export const SKB = bpf.R6;
/** Where the frame begins, until its room is changed. */
export const PACKET = bpf.R7;

// On the stack, below its end: a u32 key; the device's MTU; u64 packets and bytes; the u32 interface index of where
// the packet goes; bytes of the longest packet in it.
export const KEY = -4;
export const MTU = -8;
const PACKETS = -16;
const BYTES = -24;
export const LINK = -28;
export const LONGEST = -32;
/** Headers that are about to be put: 64 bytes, and the end of an Ethernet header before. */
export const HEADERS = -96;
const FRAME: number = HEADERS + 12 - ETHERNET_HEADER;

// Offsets in an IPv4 header.
const TYPE_OF_SERVICE = 1;
const TOTAL_LENGTH = 2;
export const FRAGMENT = 6;
const TIME_TO_LIVE = 8;
export const PROTOCOL = 9;
const CHECKSUM = 10;
export const SOURCE = 12;
export const DESTINATION = 16;
/** More fragments, and the fragment offset: as the field lies in memory. */
export const FRAGMENT_BITS = 0xff3f;
const TCP_OFFSET: number = IPV4_HEADER + 12;
const TCP_FLAGS: number = IPV4_HEADER + 13;
const TCP_SYN = 0x02;
const TCP_HEADER = 20;
const MAX_TOTAL_LENGTH = 0xffff;

/** Version 4, and 5 words of header: without options. */
const PLAIN_HEADER = 0x45;
/** PACKET_HOST (<linux/if_packet.h>). */
const PACKET_HOST = 0;

const UDP_HEADER = 8;
const GRE_HEADER = 4;
const GRE_KEY = 4;

/** Bytes of the outer headers. */
export function outerLength(format: Format, { key }: Pick<ProgramOptions, 'key'>): number {
  return IPV4_HEADER + (format === 'gre-udp' ? UDP_HEADER : 0) + GRE_HEADER + (key === undefined ? 0 : GRE_KEY);
}

/** Goes to 'pass' unless this is IPv4 in a frame that is for this device, and packets are to be taken now. */
export function begin(settings: number): bpf.Line[] {
  return [
    bpf.copy(SKB, R1),
    bpf.loadWord(R1, SKB, SKB_PROTOCOL),
    bpf.jumpUnlessEqual(R1, IPV4, 'pass'),
    bpf.loadWord(R1, SKB, SKB_PACKET_TYPE),
    bpf.jumpUnlessEqual(R1, PACKET_HOST, 'pass'),
    bpf.loadWord(R1, SKB, SKB_VLAN_PRESENT),
    bpf.jumpUnlessEqual(R1, 0, 'pass'),
    ...unlessAfter(settings, SETTING_UNTIL, 'pass'),
  ];
}

/** Goes to `late` if the time of a setting has come. */
function unlessAfter(settings: number, time: number, late: Label): bpf.Line[] {
  return [
    bpf.call(bpf.KTIME_GET_COARSE_NS),
    ...bpf.loadMapValue(R1, settings),
    bpf.loadDouble(R1, R1, time),
    bpf.jumpUnlessBelowRegister(R0, R1, late),
  ];
}

/** The ends that both programs have. */
export function end(): bpf.Line[] {
  return [
    { label: 'pass' },
    bpf.set(R0, TC_ACT_UNSPEC),
    bpf.exit,
    // The headers are half done. This takes a kernel without memory.
    { label: 'broken' },
    bpf.set(R0, TC_ACT_SHOT),
    bpf.exit,
  ];
}

/** Points PACKET to the frame, of which at least so many bytes are in one piece; goes to 'pass' if it is shorter. */
export function pointTo(bytes: number): bpf.Line[] {
  const ready = Symbol('ready');
  const point = [
    bpf.loadWord(PACKET, SKB, SKB_DATA),
    bpf.loadWord(R2, SKB, SKB_DATA_END),
    bpf.copy(R3, PACKET),
    bpf.add(R3, bytes),
    bpf.jumpUnlessAbove(R3, R2, ready),
  ];
  return [
    ...point,
    bpf.copy(R1, SKB),
    bpf.set(R2, bytes),
    bpf.call(bpf.SKB_PULL_DATA),
    bpf.jumpUnlessEqual(R0, 0, 'pass'),
    ...point,
    bpf.jump('pass'),
    { label: ready },
  ];
}

/** Register = bytes in the packet whose IPv4 header is at `at`. */
export function totalLength(to: number, at: number): bpf.Instruction[] {
  return [bpf.loadHalf(to, PACKET, at + TOTAL_LENGTH), bpf.fromNetwork16(to)];
}

/** Register = an address. */
export function address(to: number, at: number): bpf.Instruction[] {
  return [bpf.loadWord(to, PACKET, at), bpf.fromNetwork32(to)];
}

/** Goes to 'pass' unless the IPv4 header at `at` has no options, and its checksum is right (RFC 1071 §1). */
export function checkHeader(at: number): bpf.Line[] {
  return [
    bpf.loadByte(R1, PACKET, at),
    bpf.jumpUnlessEqual(R1, PLAIN_HEADER, 'pass'),
    bpf.loadWord(R1, PACKET, at),
    ...[4, 8, 12, 16].flatMap((word) => [bpf.loadWord(R2, PACKET, at + word), bpf.addRegister(R1, R2)]),
    // Three times: it has 35 bits.
    ...fold(R1),
    ...fold(R1),
    ...fold(R1),
    bpf.jumpUnlessEqual(R1, 0xffff, 'pass'),
  ];
}

/** Goes to 'pass' unless the frame ends where the packet does whose header is at its beginning. */
export function checkLength(): bpf.Line[] {
  return [
    ...totalLength(R1, ETHERNET_HEADER),
    bpf.add(R1, ETHERNET_HEADER),
    bpf.loadWord(R2, SKB, SKB_LENGTH),
    bpf.jumpUnlessSame32(R1, R2, 'pass'),
  ];
}

/** Goes to 'pass' if the inner packet at `at` may not be forwarded, or is a tunnel's. */
export function checkInner(at: number): bpf.Line[] {
  return [
    bpf.loadByte(R1, PACKET, at + TIME_TO_LIVE),
    bpf.jumpIfBelow(R1, 2, 'pass'),
    bpf.loadByte(R1, PACKET, at + PROTOCOL),
    bpf.jumpIfEqual(R1, IPPROTO_GRE, 'pass'),
  ];
}

/** Goes to 'pass' if the packet at `at` opens a TCP connection: its segment size is to be clamped. */
export function unlessSyn(at: number): bpf.Line[] {
  const other = Symbol('no SYN');
  return [
    bpf.loadByte(R1, PACKET, at + PROTOCOL),
    bpf.jumpUnlessEqual(R1, IPPROTO_TCP, other),
    ...within(at + IPV4_HEADER + TCP_HEADER),
    bpf.loadByte(R1, PACKET, at + TCP_FLAGS),
    bpf.jumpIfAny(R1, TCP_SYN, 'pass'),
    { label: other },
  ];
}

/** Goes to 'pass' unless so many bytes of the frame are in one piece. */
function within(bytes: number): bpf.Line[] {
  return [
    bpf.loadWord(R2, SKB, SKB_DATA_END),
    bpf.copy(R1, PACKET),
    bpf.add(R1, bytes),
    bpf.jumpIfAboveRegister(R1, R2, 'pass'),
  ];
}

/**
 * Counts the packets and bytes of the packet at `at` as the core does: a super-packet (GSO) as its segments. Leaves the bytes of
 * the longest in R3. Goes to 'pass' if it is a super-packet other than TCP, whose receiver could not tell its datagrams; or,
 * with `outer` bytes of outer headers to come, one that the core would not have sent whole.
 */
export function measure(at: number, outer?: number): bpf.Line[] {
  const [whole, cut] = [Symbol('one packet'), Symbol('measured')];
  const [total, size, headers] = [R4, R5, R3];
  return [
    ...totalLength(total, at),
    bpf.loadWord(size, SKB, SKB_GSO_SIZE),
    bpf.jumpIfEqual(size, 0, whole),
    bpf.loadByte(R1, PACKET, at + PROTOCOL),
    bpf.jumpUnlessEqual(R1, IPPROTO_TCP, 'pass'),
    bpf.loadHalf(R1, PACKET, at + FRAGMENT),
    bpf.jumpIfAny(R1, FRAGMENT_BITS, 'pass'),
    ...within(at + IPV4_HEADER + TCP_HEADER),
    bpf.loadByte(headers, PACKET, at + TCP_OFFSET),
    bpf.and32(headers, 0xf0),
    bpf.shiftRight(headers, 2),
    bpf.jumpIfBelow(headers, TCP_HEADER, 'pass'),
    bpf.add(headers, IPV4_HEADER),
    ...(outer === undefined ? [] : checkSegments(total, size, headers, outer)),
    // Packets: payload by segment size, rounded up.
    bpf.copy(R1, total),
    bpf.subtractRegister(R1, headers),
    bpf.jumpUnlessBelowRegister(size, R1, 'pass'),
    bpf.addRegister(R1, size),
    bpf.add(R1, -1),
    bpf.divideRegister(R1, size),
    bpf.storeDoubleFrom(STACK, PACKETS, R1),
    // Bytes: each but the first has headers of its own.
    bpf.add(R1, -1),
    bpf.multiplyRegister(R1, headers),
    bpf.addRegister(R1, total),
    bpf.storeDoubleFrom(STACK, BYTES, R1),
    bpf.addRegister(headers, size),
    bpf.jump(cut),
    { label: whole },
    bpf.storeDouble(STACK, PACKETS, 1),
    bpf.storeDoubleFrom(STACK, BYTES, total),
    bpf.copy(R3, total),
    { label: cut },
  ];
}

/** Of a super-packet that leaves: it has room for the outer headers, and its segments are none that would cost more than they carry. */
function checkSegments(total: number, size: number, headers: number, outer: number): bpf.Line[] {
  return [
    bpf.jumpIfAbove(total, MAX_TOTAL_LENGTH - outer, 'pass'),
    bpf.jumpIfBelow(size, LEAST_TCP_SEGMENT, 'pass'),
    bpf.copy(R1, headers),
    bpf.add(R1, outer),
    bpf.jumpIfBelowRegister(size, R1, 'pass'),
  ];
}

/** Turns the overlay address in a register into the key of its slot; goes to 'pass' if it is in no slice of this VM. */
export function slotKey(mappings: readonly Mapping[], local: Address, register: number): bpf.Line[] {
  const found = Symbol('slot');
  const places = slotPlacesOf(mappings, local);
  return [
    ...mappingsWith(mappings, local).flatMap((mapping, i): bpf.Line[] => {
      const { bits, length } = mapping.sliceOf(local);
      const next = Symbol('next slice');
      return [
        bpf.copy(R3, register),
        bpf.and32(R3, netmask(length)),
        bpf.jumpUnlessEqual32(R3, Number(bits), next),
        bpf.and32(register, Number(lowBits(mapping.containerBits))),
        bpf.add(register, places[i] as number),
        bpf.jump(found),
        { label: next },
      ];
    }),
    bpf.jump('pass'),
    { label: found },
  ];
}

/** R0 = where the value is that has the key on the stack; goes to `otherwise` if there is none. */
export function lookUp(map: number, otherwise: Label = 'pass'): bpf.Line[] {
  return [
    ...bpf.loadMap(R1, map),
    bpf.copy(R2, STACK),
    bpf.add(R2, KEY),
    bpf.call(bpf.MAP_LOOKUP),
    bpf.jumpIfEqual(R0, 0, otherwise),
  ];
}

/**
 * Goes to 'pass' once in a while, so that the data plane hears of the tunnel, unless the daemon has gone; `fresh` is the flag's offset in
 * a VM's record. Registers 0 to 5 are used.
 */
export function unlessFresh(settings: number, record: number, fresh: number): bpf.Line[] {
  const isFresh = Symbol('fresh');
  return [
    bpf.loadWord(R1, record, fresh),
    bpf.jumpUnlessEqual(R1, 0, isFresh),
    ...unlessAfter(settings, SETTING_ALIVE, isFresh),
    bpf.storeWordOf(record, fresh, 1),
    bpf.jump('pass'),
    { label: isFresh },
  ];
}

/** Goes to 'pass' unless the link LINK exists, and takes what is left if `outer` bytes go; LONGEST is the longest packet. */
export function checkLink(outer: number): bpf.Line[] {
  return [
    bpf.storeWordOf(STACK, MTU, 0),
    bpf.copy(R1, SKB),
    bpf.loadWord(R2, STACK, LINK),
    bpf.copy(R3, STACK),
    bpf.add(R3, MTU),
    bpf.set(R4, -outer),
    bpf.set(R5, 0),
    bpf.call(bpf.CHECK_MTU),
    bpf.jumpUnlessEqual(R0, 0, 'pass'),
    // Of super-packets it has told the MTU alone.
    bpf.loadWord(R1, STACK, LONGEST),
    bpf.loadWord(R2, STACK, MTU),
    bpf.jumpIfAboveRegister(R1, R2, 'pass'),
  ];
}

/**
 * Copies the IPv4 header at `at` to `to` on the stack, its first 12 bytes or all, with its time to live taken down as the kernel does
 * (ip_decrease_ttl in <net/ip.h>). With `ecn` the header gets the congestion mark of the outer one.
 */
export function copyHeader(at: number, to: number, { isWhole = false, ecn = false } = {}): bpf.Line[] {
  const carried = Symbol('no carry');
  const [checksum, tos] = [R3, R4];
  return [
    bpf.loadHalf(checksum, PACKET, at + CHECKSUM),
    bpf.loadByte(tos, PACKET, at + TYPE_OF_SERVICE),
    ...(ecn ? markCongestion(checksum, tos) : []),
    ...[0, 4, ...(isWhole ? [12, 16] : [])].flatMap((word) => [
      bpf.loadWord(R1, PACKET, at + word),
      bpf.storeWord(STACK, to + word, R1),
    ]),
    ...(ecn ? [bpf.storeByte(STACK, to + TYPE_OF_SERVICE, tos)] : []),
    bpf.loadHalf(R1, PACKET, at + TIME_TO_LIVE),
    bpf.add(R1, -1),
    bpf.storeHalf(STACK, to + TIME_TO_LIVE, R1),
    bpf.add(checksum, 1),
    bpf.jumpIfBelow(checksum, 0xffff, carried),
    bpf.add(checksum, 1),
    { label: carried },
    bpf.storeHalf(STACK, to + CHECKSUM, checksum),
  ];
}

const ECN_MASK = 0x03;
const NOT_ECT = 0;
const ECT_0 = 2;
const CE = 3;
const DSCP_MASK = 0xfc;

/** RFC 6040 §4.2. The packet's own header is at ETHERNET_HEADER. The checksum follows by RFC 1624 §3. */
function markCongestion(checksum: number, tos: number): bpf.Line[] {
  const same = Symbol('as it was');
  /** The first 16 bits of the header, as they lie in memory. */
  const word = (to: number, from: number) => [bpf.copy(to, from), bpf.shiftLeft(to, 8), bpf.or32(to, PLAIN_HEADER)];
  return [
    bpf.loadByte(R1, PACKET, ETHERNET_HEADER + TYPE_OF_SERVICE),
    bpf.and32(R1, ECN_MASK),
    bpf.jumpUnlessEqual(R1, CE, same),
    ...word(R1, tos),
    bpf.xor(R1, 0xffff),
    bpf.xor(checksum, 0xffff),
    bpf.addRegister(checksum, R1),
    bpf.or32(tos, CE),
    ...word(R1, tos),
    bpf.addRegister(checksum, R1),
    ...fold(checksum),
    ...fold(checksum),
    bpf.xor(checksum, 0xffff),
    { label: same },
  ];
}

/**
 * Goes to 'pass' if the two ECN fields are a combination that is dropped or counted (RFC 6040 §4.2), or one that is rare; with `isUniform`
 * also if the outer DSCP is to become the inner one.
 */
export function checkEcn(at: number, isUniform: boolean): bpf.Line[] {
  const [usual, inner, outer] = [Symbol('usual'), R1, R2];
  return [
    bpf.loadByte(inner, PACKET, at + TYPE_OF_SERVICE),
    bpf.loadByte(outer, PACKET, ETHERNET_HEADER + TYPE_OF_SERVICE),
    ...(isUniform
      ? [bpf.copy(R3, inner), bpf.xor32(R3, outer), bpf.and32(R3, DSCP_MASK), bpf.jumpUnlessEqual(R3, 0, 'pass')]
      : []),
    bpf.and32(inner, ECN_MASK),
    bpf.and32(outer, ECN_MASK),
    bpf.jumpIfEqual(outer, NOT_ECT, usual),
    bpf.copy(R3, inner),
    bpf.xor32(R3, outer),
    bpf.jumpIfEqual(R3, 0, usual),
    bpf.jumpIfEqual(inner, NOT_ECT, 'pass'),
    bpf.jumpIfEqual(outer, CE, usual),
    // What is left without an anomaly: the inner one says CE, the outer one ECT(0).
    bpf.jumpUnlessEqual(inner, CE, 'pass'),
    bpf.jumpUnlessEqual(outer, ECT_0, 'pass'),
    { label: usual },
  ];
}

/** Puts the frame's Ethernet addresses from the slot, and the header at `at`, on the stack. */
export function makeFrame(slot: number, at: number, ecn: boolean): bpf.Line[] {
  const halves = Array.from({ length: 6 }, (_, i) => 2 * i);
  return [
    ...halves.flatMap((half) => [
      bpf.loadHalf(R1, slot, SLOT_ADDRESSES + half),
      bpf.storeHalf(STACK, FRAME + half, R1),
    ]),
    bpf.storeHalfOf(STACK, FRAME + 12, IPV4),
    ...copyHeader(at, FRAME + ETHERNET_HEADER, { ecn }),
  ];
}

/** Writes that frame. */
export function putFrame(otherwise: Label): bpf.Line[] {
  return putBytes(0, FRAME, ETHERNET_HEADER + 12, otherwise);
}

/** Writes bytes from the stack into the packet. */
export function putBytes(at: number, from: number, length: number, otherwise: Label): bpf.Line[] {
  return [
    bpf.copy(R1, SKB),
    bpf.set(R2, at),
    bpf.copy(R3, STACK),
    bpf.add(R3, from),
    bpf.set(R4, length),
    bpf.set(R5, 0),
    bpf.call(bpf.SKB_STORE_BYTES),
    bpf.jumpUnlessEqual(R0, 0, otherwise),
  ];
}

/** Makes room behind the Ethernet header, or takes bytes away there. */
export function adjustRoom(bytes: number, flags: number): bpf.Line[] {
  return [
    bpf.copy(R1, SKB),
    bpf.set(R2, bytes),
    bpf.set(R3, ROOM_AT_MAC),
    bpf.set(R4, ROOM_FIXED_GSO | ROOM_NO_CSUM_RESET | flags),
    bpf.set(R5, 0),
    bpf.call(bpf.SKB_ADJUST_ROOM),
    bpf.jumpUnlessEqual(R0, 0, 'pass'),
  ];
}

/** A register that calls leave alone = the counters of this processor. */
export function pointToCounts(to: number, counts: number): bpf.Line[] {
  return [bpf.storeWordOf(STACK, KEY, 0), ...lookUp(counts), bpf.copy(to, R0)];
}

/** Adds the packet to the counters at `which`, and to those of a VM. */
export function count(counts: number, which: number, vm?: { record: number; offset: number }): bpf.Line[] {
  return [
    { at: 0, from: PACKETS },
    { at: 8, from: BYTES },
  ].flatMap(({ at, from }) => [
    bpf.loadDouble(R1, STACK, from),
    bpf.loadDouble(R2, counts, which + at),
    bpf.addRegister(R2, R1),
    bpf.storeDoubleFrom(counts, which + at, R2),
    ...(vm ? [bpf.addAtomically(vm.record, vm.offset + at, R1)] : []),
  ]);
}

/** Folds a sum of 16-bit words once. R2 is used. */
export function fold(register: number): bpf.Instruction[] {
  return [bpf.copy(R2, register), bpf.shiftRight64(R2, 16), bpf.and32(register, 0xffff), bpf.addRegister(register, R2)];
}
