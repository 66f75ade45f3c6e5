/** How a packet is changed: its header taken down by one hop, its congestion mark (RFC 6040), and the frame that a container gets. */
import * as bpf from '../../../linux/bpf/assembler.ts';
import { R0, R1, R2, R3, R4, R5, STACK } from '../../../linux/bpf/assembler.ts';
import { ROOM_AT_MAC, ROOM_FIXED_GSO, ROOM_NO_CSUM_RESET } from '../../../linux/bpf/skb.ts';
import type { Label } from '../../../linux/labels.ts';
import { ETHERNET_HEADER, IPV4 } from '../../check/header-loads.ts';
import { SLOT_ADDRESSES } from '../state.ts';
import { CHECKSUM, fold, HEADERS, PACKET, PLAIN_HEADER, SKB, TIME_TO_LIVE, TYPE_OF_SERVICE } from './packet.ts';

/** On the stack: so that the IPv4 header in it is aligned. */
const FRAME: number = HEADERS + 12 - ETHERNET_HEADER;
const ECN_MASK = 0x03;
const NOT_ECT = 0;
const ECT_0 = 2;
const CE = 3;
const DSCP_MASK = 0xfc;

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
