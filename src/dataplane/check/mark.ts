/**
 * VXLAN devices do not tell who sent a packet. So a small eBPF program, where the underlay's packets come in, writes the outer source into the packet's mark,
 * which lives until the VXLAN device's own program has looked at it (skb_scrub_packet in net/core/skbuff.c keeps it within a network namespace). What comes in
 * by any other device, such as a container's, has no mark, and is not believed.
 */

import * as bpf from '../../linux/bpf/assembler.ts';
import { loadProgram } from '../../linux/bpf/program.ts';
import type { Address } from '../../mesh/address.ts';
import {
  headerByte,
  headerHalf,
  headerWord,
  IPPROTO_UDP,
  IPV4,
  IPV4_HEADER,
  loadHeader,
  OFFSET,
  SKB,
  SKB_MARK,
  SKB_PROTOCOL,
  TC_ACT_UNSPEC,
} from './skb.ts';

/** Ports, length and checksum; then flags and the network identifier (RFC 7348 §5). */
const UDP_VXLAN = 16;
const FRAGMENT_OFFSET = 0x1fff;
/** A register that calls leave alone. */
const SOURCE = 8;

export interface MarkOptions {
  local: Address;
  port: number;
  vni: number;
  /** Bytes before the IPv4 header. */
  linkHeader: number;
}

/** Loads the program; returns its descriptor. */
export function loadMarkProgram({ local, port, vni, linkHeader }: MarkOptions): number {
  const lines: bpf.Line[] = [
    bpf.copy(SKB, 1),
    bpf.loadWord(1, SKB, SKB_PROTOCOL),
    bpf.jumpUnlessEqual(1, IPV4, 'next'),
    bpf.set(OFFSET, linkHeader),
    ...loadHeader(IPV4_HEADER, linkHeader, 'next'),
    ...headerByte(1, 9),
    bpf.jumpUnlessEqual(1, IPPROTO_UDP, 'next'),
    // Of fragments, the first has the ports, and its mark is that of the whole packet.
    ...headerHalf(1, 6),
    bpf.and32(1, FRAGMENT_OFFSET),
    bpf.jumpUnlessEqual(1, 0, 'next'),
    ...headerWord(1, 16),
    bpf.jumpUnlessEqual32(1, Number(local.bits), 'next'),
    ...headerWord(SOURCE, 12),
    ...headerByte(1, 0),
    bpf.and32(1, 0x0f),
    bpf.shiftLeft(1, 2),
    bpf.addRegister(OFFSET, 1),
    ...loadHeader(UDP_VXLAN, linkHeader + IPV4_HEADER, 'next'),
    ...headerHalf(1, 2),
    bpf.jumpUnlessEqual(1, port, 'next'),
    // Other networks may share the port.
    ...headerWord(1, 12),
    bpf.shiftRight(1, 8),
    bpf.jumpUnlessEqual(1, vni, 'next'),
    bpf.storeWord(SKB, SKB_MARK, SOURCE),
    { label: 'next' },
    bpf.set(0, TC_ACT_UNSPEC),
    bpf.exit,
  ];
  return loadProgram(bpf.assemble(lines), 'for the underlay');
}
