/** How long a packet is, and what it counts as: a super-packet (GSO) is measured by its segments. */
import { LEAST_TCP_SEGMENT } from '../../../core/abi.ts';
import * as bpf from '../../../linux/bpf/assembler.ts';
import { R0, R1, R2, R3, R4, R5, STACK } from '../../../linux/bpf/assembler.ts';
import { SKB_GSO_SIZE } from '../../../linux/bpf/skb.ts';
import { IPPROTO_TCP } from '../../../linux/protocols.ts';
import { IPV4_HEADER } from '../../check/header-loads.ts';
import {
  BYTES,
  FRAGMENT,
  FRAGMENT_BITS,
  LINK,
  LONGEST,
  MTU,
  PACKET,
  PACKETS,
  PROTOCOL,
  SKB,
  TCP_HEADER,
  totalLength,
  within,
} from './packet.ts';

const TCP_OFFSET: number = IPV4_HEADER + 12;
const MAX_TOTAL_LENGTH = 0xffff;

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
