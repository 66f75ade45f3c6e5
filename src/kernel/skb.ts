/** What the eBPF programs of the kernel data plane have in common: packets as they see them (struct __sk_buff, <linux/bpf.h>), and verdicts (<linux/pkt_cls.h>). */
import * as bpf from '../io/linux/bpf.ts';

// Offsets in struct __sk_buff.
export const SKB_LENGTH = 0;
export const SKB_MARK = 8;
export const SKB_PROTOCOL = 16;
const SKB_DATA = 76;
const SKB_DATA_END = 80;
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
/** Points there, after `bytesAt`. */
export const BYTES = 2;

const SKB_PULL_DATA = 39;

/** Has BYTES point to OFFSET, where there are so many bytes; else goes to a label. `name` makes labels unique. Registers 1 to 5 are used. */
export function bytesAt(name: string, length: number, otherwise: string): bpf.Line[] {
  const look: bpf.Line[] = [
    bpf.loadWord(BYTES, SKB, SKB_DATA),
    bpf.loadWord(3, SKB, SKB_DATA_END),
    bpf.addRegister(BYTES, OFFSET),
    bpf.copy(4, BYTES),
    bpf.add(4, length),
    { goto: `there: ${name}`, when: bpf.skipIfAtMost(4, 3, 0) },
  ];
  return [
    ...look,
    // They may lie behind the linear part of the packet.
    bpf.copy(1, SKB),
    bpf.copy(2, OFFSET),
    bpf.add(2, length),
    bpf.call(SKB_PULL_DATA),
    ...look,
    { goto: otherwise, when: bpf.skip(0) },
    { label: `there: ${name}` },
  ];
}
