/** The outer headers: those of the core (RFC 2003, RFC 2784, RFC 8086), made on the stack. */
import { GRE_UDP_PORT } from '../../../core/abi.ts';
import * as bpf from '../../../linux/bpf/assembler.ts';
import { R0, R1, R2, R3, R4, R5, STACK } from '../../../linux/bpf/assembler.ts';
import { IPPROTO_GRE, IPPROTO_UDP } from '../../../linux/protocols.ts';
import { ETHERNET_HEADER as INNER, IPV4_HEADER } from '../../check/header-loads.ts';
import { fold, HEADERS, PACKET, SKB, TIME_TO_LIVE, TYPE_OF_SERVICE, totalLength } from './packet.ts';
import type { Format, ProgramOptions } from './programs.ts';

const UDP_HEADER = 8;
const GRE_HEADER = 4;
const GRE_KEY = 4;
/** Ports of the flow (RFC 8086 §3.2): the dynamic ones, but one that Azure keeps for itself. */
const FIRST_PORT = 0xc000;
const AZURE_PORT = 65330;
const DONT_FRAGMENT = 0x4000;
const GRE_IPV4 = 0x0800;
const GRE_KEY_PRESENT = 0x2000;

/** Bytes of the outer headers. */
export function outerLength(format: Format, { key }: Pick<ProgramOptions, 'key'>): number {
  return IPV4_HEADER + (format === 'gre-udp' ? UDP_HEADER : 0) + GRE_HEADER + (key === undefined ? 0 : GRE_KEY);
}

/** Makes the outer headers of a packet to the VM in the register on the stack. */
export function outerHeaders(options: ProgramOptions, vm: number): bpf.Line[] {
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
    bpf.copy(R2, vm),
    bpf.shiftRight(R2, 16),
    bpf.addRegister(sum, R2),
    bpf.copy(R2, vm),
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
    bpf.copy(R2, vm),
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
    // By a register: see assemble.
    ...(key === undefined ? [] : [bpf.set(R2, network32(key)), bpf.storeWord(STACK, gre + 4, R2)]),
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
