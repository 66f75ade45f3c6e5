/** What the eBPF programs of the kernel data plane have in common: packets as they see them (struct __sk_buff, <linux/bpf.h>), and verdicts (<linux/pkt_cls.h>). */
import * as bpf from '../io/linux/bpf.ts';

// Offsets in struct __sk_buff.
export const SKB_LENGTH = 0;
export const SKB_MARK = 8;
export const SKB_PROTOCOL = 16;
export const SKB_GSO_SEGMENTS = 164;
/** On to the next filter. */
export const TC_ACT_UNSPEC = -1;
export const TC_ACT_SHOT = 2;
/** ETH_P_IP, in network order (<linux/if_ether.h>). */
export const IPV4 = 0x0008;
export const ETHERNET_HEADER = 14;
export const IPPROTO_UDP = 17;

// Registers that calls leave alone.
export const SKB = 6;
/** Where in the packet something begins, in bytes. */
export const OFFSET = 9;
/** Where `loadHeader` puts what it has read: below the end of the stack. */
const HEADER = -32;

const SKB_LOAD_BYTES = 26;

/**
 * Reads so many bytes, 20 at most, from OFFSET on; where they are not there, goes to a label. Registers 1 to 5 are used. (To look at the packet itself would be
 * faster by some ns, but takes CAP_PERFMON.)
 */
export function loadHeader(length: number, otherwise: string): bpf.Line[] {
  return [
    bpf.copy(1, SKB),
    bpf.copy(2, OFFSET),
    bpf.copy(3, bpf.STACK),
    bpf.add(3, HEADER),
    bpf.set(4, length),
    bpf.call(SKB_LOAD_BYTES),
    { goto: otherwise, when: bpf.skipUnlessEqual(0, 0, 0) },
  ];
}

// What was read, into registers; in host byte order.
export const headerByte = (to: number, at: number): bpf.Instruction[] => [bpf.loadByte(to, bpf.STACK, HEADER + at)];
export const headerHalf = (to: number, at: number): bpf.Instruction[] => [
  bpf.loadHalf(to, bpf.STACK, HEADER + at),
  bpf.fromNetwork16(to),
];
export const headerWord = (to: number, at: number): bpf.Instruction[] => [
  bpf.loadWord(to, bpf.STACK, HEADER + at),
  bpf.fromNetwork32(to),
];
