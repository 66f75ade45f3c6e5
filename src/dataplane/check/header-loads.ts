/** What the eBPF programs of the kernel data plane have in common: how they read headers, and verdicts (<linux/pkt_cls.h>). */
import * as bpf from '../../linux/bpf/assembler.ts';
import { SKB_DATA, SKB_DATA_END } from '../../linux/bpf/skb.ts';
import type { Label } from '../../linux/labels.ts';

/** On to the next filter. */
export const TC_ACT_UNSPEC = -1;
export const TC_ACT_SHOT = 2;
/** ETH_P_IP, in network order (<linux/if_ether.h>). */
export const IPV4 = 0x0008;
export const ETHERNET_HEADER = 14;
/** Without options. */
export const IPV4_HEADER = 20;

// Registers that calls leave alone.
export const SKB = 6;
/** Where in the packet something begins, in bytes. */
export const OFFSET = 9;
/** A register: where the header is that was loaded last, until the next call. */
const HEADER = 4;
/** Where a header is copied to: below the end of the stack, whose last 8 bytes are others'. */
const COPY = -72;

/**
 * Points to so many bytes, 64 at most, from OFFSET on; where they are not there, goes to a label. Registers 1 to 5 are used. A call takes some 15 ns, so if OFFSET
 * is the usual one, and the kernel has the bytes in one piece, they are looked at where they are. (At an offset that is not known beforehand that takes
 * CAP_PERFMON: sanitize_ptr_alu in kernel/bpf/verifier.c.)
 */
export function loadHeader(length: number, usual: number, otherwise: Label): bpf.Line[] {
  const [copied, ready] = [Symbol('copied'), Symbol('ready')];
  return [
    bpf.jumpUnlessEqual(OFFSET, usual, copied),
    bpf.loadWord(HEADER, SKB, SKB_DATA),
    bpf.loadWord(2, SKB, SKB_DATA_END),
    bpf.add(HEADER, usual),
    bpf.copy(3, HEADER),
    bpf.add(3, length),
    bpf.jumpUnlessAbove(3, 2, ready),
    { label: copied },
    bpf.copy(1, SKB),
    bpf.copy(2, OFFSET),
    bpf.copy(3, bpf.STACK),
    bpf.add(3, COPY),
    bpf.set(4, length),
    bpf.call(bpf.SKB_LOAD_BYTES),
    bpf.jumpUnlessEqual(0, 0, otherwise),
    bpf.copy(HEADER, bpf.STACK),
    bpf.add(HEADER, COPY),
    { label: ready },
  ];
}

// What was read, into registers; in host byte order.
export const headerByte = (to: number, at: number): bpf.Instruction[] => [bpf.loadByte(to, HEADER, at)];
export const headerHalf = (to: number, at: number): bpf.Instruction[] => [
  bpf.loadHalf(to, HEADER, at),
  bpf.fromNetwork16(to),
];
/** In halves, as kernels without unaligned access let nothing else pass (check_pkt_ptr_alignment in kernel/bpf/verifier.c); register 2 is used. */
export const headerWord = (to: number, at: number): bpf.Instruction[] => [
  ...headerHalf(to, at),
  bpf.shiftLeft(to, 16),
  ...headerHalf(2, at + 2),
  bpf.orRegister(to, 2),
];
