/**
 * VXLAN devices do not tell who sent a packet. So a small eBPF program, where the underlay's packets come in, compares the inner source with the outer one, and
 * leaves its verdict in the packet's mark, until the program of the VXLAN device reads it (skb_scrub_packet in net/core/skbuff.c keeps the mark within a network
 * namespace). What comes in by any other device, such as a container's, has no verdict, and is not believed.
 */

import * as bpf from '../../linux/bpf/assembler.ts';
import { loadProgram } from '../../linux/bpf/program.ts';
import { SKB_MARK, SKB_PROTOCOL } from '../../linux/bpf/skb.ts';
import { IPPROTO_UDP } from '../../linux/protocols.ts';
import type { Address } from '../../mesh/address.ts';
import type { Mapping } from '../../mesh/mapping.ts';
import { inMapping, SCRATCH, SOURCE, unlessNoVm, unlessReserved, vmOf } from './arithmetic.ts';
import {
  headerByte,
  headerHalf,
  headerWord,
  IPV4,
  IPV4_HEADER,
  loadHeader,
  OFFSET,
  SKB,
  TC_ACT_UNSPEC,
} from './header-loads.ts';

/**
 * The two bits of a mark that are ours. Rules of the host see them between the two programs; all other bits keep what they are. Who uses which bits is in
 * https://github.com/fwmark/registry. These are not those of AWS (0x80), Cilium's kinds of marks (0xf00), CNI portmap (0x2000), kube-proxy (0x4000 and 0x8000),
 * Weave Net and Tailscale (both within 0xff0000). They may be those of Calico (0xffff0000, unless its IptablesMarkMask says otherwise), of Cilium's identities
 * (the upper 16 bits of some kinds), and of whoever sets a whole mark, such as wg-quick.
 */
export const VERDICT = 0x30000000;
/** From the underlay, and the inner source lives on the outer one. */
export const BELIEVED = 0x10000000;
/** From the underlay, but spoofed, cut short, or of an address that is nobody's. */
export const DOUBTED = 0x20000000;
/** Not from the underlay, or from this VM. */
const NONE = 0;

const ETH_P_IP = 0x0800;
const FRAGMENT_OFFSET = 0x1fff;
const UDP_HEADER = 8;
/** Flags and the network identifier (RFC 7348 §5). */
const VXLAN_HEADER = 8;
/** The inner Ethernet header's type is loaded together with the IPv4 header behind it. */
const ADDRESSES = 12;
const TYPE = 2;

// Registers that calls leave alone, beside those of header-loads.ts: where the IPv4 packet ends, from the beginning of the frame; and its source.
const END = 7;
const OUTER_SOURCE = 8;
const FOUND = 5;
/** On the stack, below its end. */
const KEY = -8;

export interface MarkOptions {
  mappings: readonly Mapping[];
  local: Address;
  port: number;
  vni: number;
  /** Bytes before the IPv4 header. */
  linkHeader: number;
  /** Descriptor of a map whose only value, 8 bytes, gets the outer source of the last packet that is doubted. */
  doubts?: number;
}

/** Loads the program; returns its descriptor. */
export function loadMarkProgram({ mappings, local, port, vni, linkHeader, doubts }: MarkOptions): number {
  const lines: bpf.Line[] = [
    bpf.copy(SKB, 1),
    bpf.loadWord(1, SKB, SKB_PROTOCOL),
    bpf.jumpUnlessEqual(1, IPV4, 'next'),
    bpf.set(OFFSET, linkHeader),
    ...loadHeader(IPV4_HEADER, linkHeader, 'next'),
    ...headerByte(1, 9),
    bpf.jumpUnlessEqual(1, IPPROTO_UDP, 'next'),
    // Of fragments, the first has the ports and the inner header, and its mark is that of the whole packet (inet_frag_reasm_prepare in
    // net/ipv4/inet_fragment.c).
    ...headerHalf(1, 6),
    bpf.and32(1, FRAGMENT_OFFSET),
    bpf.jumpUnlessEqual(1, 0, 'next'),
    ...headerWord(1, 16),
    bpf.jumpUnlessEqual32(1, Number(local.bits), 'next'),
    ...headerWord(OUTER_SOURCE, 12),
    ...headerHalf(END, 2),
    bpf.add(END, linkHeader),
    ...headerByte(1, 0),
    bpf.and32(1, 0x0f),
    bpf.shiftLeft(1, 2),
    bpf.addRegister(OFFSET, 1),
    ...loadHeader(UDP_HEADER + VXLAN_HEADER, linkHeader + IPV4_HEADER, 'next'),
    ...headerHalf(1, 2),
    bpf.jumpUnlessEqual(1, port, 'next'),
    // Other networks may share the port.
    ...headerWord(1, UDP_HEADER + 4),
    bpf.shiftRight(1, 8),
    bpf.jumpUnlessEqual(1, vni, 'next'),
    bpf.set(FOUND, NONE),
    bpf.jumpIfEqual32(OUTER_SOURCE, Number(local.bits), 'mark'),
    ...innerSource(linkHeader),
    ...inMapping(mappings, SOURCE, (mapping) => [
      ...vmOf(mapping, SOURCE, SCRATCH),
      bpf.jumpUnlessSame32(SCRATCH, OUTER_SOURCE, 'doubted'),
      ...unlessNoVm(mapping, SCRATCH, 'doubted'),
      ...unlessReserved(mapping, SOURCE, 'doubted'),
      bpf.set(FOUND, BELIEVED),
      bpf.jump('mark'),
    ]),
    { label: 'doubted' },
    ...(doubts === undefined ? [] : noteDoubt(doubts)),
    bpf.set(FOUND, DOUBTED),
    { label: 'mark' },
    bpf.loadWord(1, SKB, SKB_MARK),
    bpf.and32(1, ~VERDICT),
    bpf.orRegister(1, FOUND),
    bpf.storeWord(SKB, SKB_MARK, 1),
    { label: 'next' },
    bpf.set(0, TC_ACT_UNSPEC),
    bpf.exit,
  ];
  return loadProgram(bpf.assemble(lines), 'for the underlay');
}

/** Keeps the outer source: whoever looks into a packet that was doubted wants to know it, and the VXLAN device tells nobody. */
function noteDoubt(map: number): bpf.Line[] {
  return [
    bpf.storeDouble(bpf.STACK, KEY, 0),
    ...bpf.loadMap(1, map),
    bpf.copy(2, bpf.STACK),
    bpf.add(2, KEY),
    bpf.call(bpf.MAP_LOOKUP),
    bpf.jumpIfEqual(0, 0, 'not noted'),
    bpf.storeWord(0, 0, OUTER_SOURCE),
    { label: 'not noted' },
  ];
}

/**
 * The inner source, of bytes that the VXLAN device will find at the same place: not behind the end of the IPv4 packet (behind a first fragment comes the second
 * instead, whatever the frame has there), and not behind a VLAN tag, which the kernel takes away (__netif_receive_skb_core in net/core/dev.c).
 */
function innerSource(linkHeader: number): bpf.Line[] {
  const start = UDP_HEADER + VXLAN_HEADER + ADDRESSES;
  const length = TYPE + IPV4_HEADER;
  return [
    bpf.add(OFFSET, start),
    // Super-packets (GSO) of more than 64 KiB do not say their length (iph_set_totlen in <linux/ip.h>); other packets without one the kernel drops.
    bpf.jumpIfEqual(END, linkHeader, 'no length'),
    bpf.copy(1, OFFSET),
    bpf.add(1, length - 1),
    bpf.jumpUnlessAbove(END, 1, 'doubted'),
    { label: 'no length' },
    ...loadHeader(length, linkHeader + IPV4_HEADER + start, 'doubted'),
    ...headerHalf(1, 0),
    bpf.jumpUnlessEqual(1, ETH_P_IP, 'doubted'),
    ...headerWord(SOURCE, TYPE + 12),
  ];
}
