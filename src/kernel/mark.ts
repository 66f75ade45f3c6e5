/**
 * VXLAN devices do not tell who sent a packet. So a small eBPF program, where the underlay's packets come in, writes the outer source into the packet's mark,
 * which lives until the VXLAN device's own program has looked at it (skb_scrub_packet in net/core/skbuff.c keeps it within a network namespace). What comes in
 * by any other device, such as a container's, has no mark, and is not believed.
 */
import type { Address } from '../address.ts';
import * as bpf from '../io/linux/bpf.ts';

const SKB_MARK = 8;
const SKB_PROTOCOL = 16;
const SKB_LOAD_BYTES = 26;
const TC_ACT_UNSPEC = -1;
const IPV4 = 0x0008;
const IPPROTO_UDP = 17;
const FRAGMENT_OFFSET = 0x1fff;
const HEADER = -24;
const PORTS = -32;
const SKB = 6;
const OFFSET = 9;

/** The program for a device whose packets begin with a link-layer header of so many bytes; returns its descriptor. */
export function loadMarkProgram(local: Address, port: number, linkHeader: number): number {
  const next = (when: bpf.Instruction): bpf.Line => ({ goto: 'next', when });
  const loadBytes = (to: number, length: number): bpf.Line[] => [
    bpf.copy(1, SKB),
    bpf.copy(2, OFFSET),
    bpf.copy(3, bpf.STACK),
    bpf.add(3, to),
    bpf.set(4, length),
    bpf.call(SKB_LOAD_BYTES),
    next(bpf.skipUnlessEqual(0, 0, 0)),
  ];
  const lines: bpf.Line[] = [
    bpf.copy(SKB, 1),
    bpf.loadWord(1, SKB, SKB_PROTOCOL),
    next(bpf.skipUnlessEqual(1, IPV4, 0)),
    bpf.set(OFFSET, linkHeader),
    ...loadBytes(HEADER, 20),
    bpf.loadByte(1, bpf.STACK, HEADER + 9),
    next(bpf.skipUnlessEqual(1, IPPROTO_UDP, 0)),
    // Of fragments, the first has the ports, and its mark is that of the whole packet.
    bpf.loadHalf(1, bpf.STACK, HEADER + 6),
    bpf.fromNetwork16(1),
    bpf.and32(1, FRAGMENT_OFFSET),
    next(bpf.skipUnlessEqual(1, 0, 0)),
    bpf.loadWord(1, bpf.STACK, HEADER + 16),
    bpf.fromNetwork32(1),
    bpf.skipIfEqual32(1, Number(local.bits), 1),
    next(bpf.skip(0)),
    bpf.loadByte(1, bpf.STACK, HEADER),
    bpf.and32(1, 0x0f),
    bpf.shiftLeft(1, 2),
    bpf.addRegister(OFFSET, 1),
    ...loadBytes(PORTS, 4),
    bpf.loadHalf(1, bpf.STACK, PORTS + 2),
    bpf.fromNetwork16(1),
    next(bpf.skipUnlessEqual(1, port, 0)),
    bpf.loadWord(1, bpf.STACK, HEADER + 12),
    bpf.fromNetwork32(1),
    bpf.storeWord(SKB, SKB_MARK, 1),
    { label: 'next' },
    bpf.set(0, TC_ACT_UNSPEC),
    bpf.exit,
  ];
  return bpf.loadProgram(bpf.assemble(lines), 'for the underlay');
}
