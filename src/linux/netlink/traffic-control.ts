/**
 * Queueing disciplines and filters (struct tcmsg, <linux/rtnetlink.h>), as far as BPF programs need them
 * (<linux/pkt_cls.h>, tc-bpf(8)).
 */
import { attributes, bytes, message, s32, struct, text, u8, u32, type ValueOf } from './codec.ts';

export const RTM_NEWQDISC = 36;
export const RTM_DELQDISC = 37;
export const RTM_GETQDISC = 38;
export const RTM_NEWTFILTER = 44;
export const RTM_DELTFILTER = 45;
export const RTM_GETTFILTER = 46;
export const RTNLGRP_TC = 4;

// <linux/pkt_sched.h>: the discipline that only has filters, and its two places.
export const TC_H_CLSACT = 0xfffffff1;
export const CLSACT_HANDLE = 0xffff0000;
export const CLSACT_INGRESS = 0xfffffff2;
export const CLSACT_EGRESS = 0xfffffff3;
// <linux/pkt_cls.h>
export const TCA_BPF_FLAG_ACT_DIRECT = 1;
/** The name that all our filters have. */
export const OUR_FILTER = 'inlay';

const tcmsg = struct(20, {
  family: [0, u8],
  ifindex: [4, s32],
  handle: [8, u32],
  parent: [12, u32],
  info: [16, u32],
});
/** `tag` is a hash of the program's instructions, `id` the program's number: both only the kernel writes. */
const bpfOptions = attributes({
  fd: [6, u32],
  name: [7, text],
  flags: [8, u32],
  tag: [10, bytes],
  id: [11, u32],
});

/** A filter or discipline of any kind, without its options: each kind has a form of its own for them. */
export const trafficControl = message(tcmsg, { kind: [1, text] });

/** A filter of kind bpf. */
export const bpfFilter = message(tcmsg, { kind: [1, text], options: [2, bpfOptions] });

/**
 * Whether a filter from a dump is one of ours, whichever daemon put it there and whichever program it runs.
 */
export function isOurs({ kind, options }: Pick<ValueOf<typeof bpfFilter>, 'kind' | 'options'>): boolean {
  return kind === 'bpf' && options?.name === OUR_FILTER;
}
