/**
 * What socket filters of rtnetlink messages are made of: the fields that they look at, and numbers as a
 * filter sees them.
 */

import type { Label } from '../labels.ts';
import { jumpIfAnyBit, jumpIfEqual, LD_BYTE, LD_HALF, LD_WORD, type Line } from '../socket-filter.ts';

// Offsets in a message. struct nlmsghdr; behind it the family, and ifi_index and ndm_ifindex at the same
// place; NETCONFA_IFINDEX is the first attribute of its message (inet_netconf_fill_devconf in
// net/ipv4/devinet.c).
export const loadType: Line = [LD_HALF, 4];
/** nlmsg_pid: the port of the socket that made the change, or 0. */
export const loadPort: Line = [LD_WORD, 12];
export const loadFamily: Line = [LD_BYTE, 16];
export const loadIfindex: Line = [LD_WORD, 20];
/** ifi_flags and ifi_change. */
export const loadFlags: Line = [LD_WORD, 24];
export const loadChange: Line = [LD_WORD, 28];
export const loadNetconfIfindex: Line = [LD_WORD, 24];

/** ndm_state. */
export const loadNeighbourState: Line = [LD_HALF, 24];

/** Goes to a label if the type is one of these. */
export function jumpIfType(types: readonly number[], to: Label): Line[] {
  return types.map((type) => jumpIfEqual(((type & 0xff) << 8) | (type >> 8), to));
}

/** Whether a half has any of these bits. */
export function jumpIfHalfBits(bits: number, ifTrue?: Label, ifFalse?: Label): Line {
  return jumpIfAnyBit(((bits & 0xff) << 8) | (bits >> 8), ifTrue, ifFalse);
}

/** Compares a word: filters load in network order, the messages are in host order. */
export function jumpIfWord(word: number, ifTrue?: Label, ifFalse?: Label): Line {
  return jumpIfEqual(inNetworkOrder(word), ifTrue, ifFalse);
}

/** Whether a word has any of these bits. */
export function jumpIfBits(bits: number, ifTrue?: Label, ifFalse?: Label): Line {
  return jumpIfAnyBit(inNetworkOrder(bits), ifTrue, ifFalse);
}

function inNetworkOrder(word: number): number {
  return new DataView(Uint32Array.of(word).buffer).getUint32(0);
}
