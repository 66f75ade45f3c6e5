/** A packet of which some is known, as a rule set is asked about it; and what can be said of it then. */
import { type Address, netmask, type Prefix } from '../../mesh/address.ts';
import { ipv4Bytes } from '../netlink/ipv4.ts';

/** Whether something is true of all packets that are meant, of none, or of some perhaps. */
export type Answer = 'yes' | 'no' | 'maybe';

export interface Device {
  name: string;
  index: number;
}

/** Devices whose names begin alike. */
export interface DevicesNamed {
  prefix: string;
}

/** What a packet has where it has no such device: one that this VM sends came in by none. */
export const NO_DEVICE: Device = { name: '', index: 0 };

/** Packets that are alike. What is left out is not known. */
export interface Packet {
  /** The devices it came in by, and goes out by. */
  in?: Device | DevicesNamed | undefined;
  out?: Device | DevicesNamed | undefined;
  source: Prefix;
  destination: Prefix;
  /** Whether the destination is surely no address of this machine. */
  isForOthers?: boolean;
  protocol?: number | undefined;
  /** Destination port, of protocols that have ports. */
  port?: number | undefined;
  /** What connection tracking says of it, such as that it is the first of its connection, or a later one. */
  state: keyof typeof STATE_BITS;
  /** Absent if a rule may have set it. A packet comes without. */
  mark?: number | undefined;
}

/** Bytes of which the bits in `known` are known. */
export interface Bits {
  value: Uint8Array;
  known: Uint8Array;
}

const NAME_SIZE = 16;

export function unknown(length: number): Bits {
  return { value: new Uint8Array(length), known: new Uint8Array(length) };
}

export function knownBits(value: Uint8Array): Bits {
  return { value, known: new Uint8Array(value.length).fill(0xff) };
}

/** In host order; undefined for a number that is not known. */
export function numberBits(value: number | undefined, size: 1 | 2 | 4 = 4): Bits {
  if (value === undefined) return unknown(size);
  return knownBits(new Uint8Array(Uint32Array.of(value).buffer, 0, size));
}

/** As the kernel compares names: 16 bytes, zeroes behind (IFNAMSIZ). */
export function nameBits(device: Device | DevicesNamed | undefined): Bits {
  if (!device) return unknown(NAME_SIZE);
  const value = new Uint8Array(NAME_SIZE);
  if ('name' in device) {
    new TextEncoder().encodeInto(device.name, value);
    return knownBits(value);
  }
  const { written } = new TextEncoder().encodeInto(device.prefix, value);
  return { value, known: new Uint8Array(NAME_SIZE).fill(0xff, 0, written) };
}

export function indexBits(device: Device | DevicesNamed | undefined): Bits {
  return numberBits(device && 'index' in device ? device.index : undefined);
}

export function addressBits(prefix: Prefix): Bits {
  return { value: ipv4Bytes(Number(prefix.bits)), known: ipv4Bytes(netmask(prefix.length)) };
}

/** One address. */
export function only(address: Address): Prefix {
  return { ...address, length: address.width };
}

/** Whether all of it is known. */
export function isWhole({ known }: Bits): boolean {
  return known.every((byte) => byte === 0xff);
}

/** Whether they equal `want` in the bits of `mask`, or all its bits. */
export function equals({ value, known }: Bits, want: Uint8Array, mask?: Uint8Array): Answer {
  let answer: Answer = 'yes';
  for (const [i, byte] of want.entries()) {
    const bits = mask?.[i] ?? 0xff;
    const differs = ((value[i] ?? 0) ^ byte) & bits;
    const isKnown = (known[i] ?? 0) & bits;
    if (differs & isKnown) return 'no';
    if (isKnown !== bits) answer = 'maybe';
  }
  return answer;
}

export function not(answer: Answer): Answer {
  return answer === 'maybe' ? 'maybe' : answer === 'yes' ? 'no' : 'yes';
}

export function both(...answers: readonly Answer[]): Answer {
  if (answers.includes('no')) return 'no';
  return answers.includes('maybe') ? 'maybe' : 'yes';
}

export function anyOf(answers: readonly Answer[]): Answer {
  return not(both(...answers.map(not)));
}

export function answerOf(is: boolean): Answer {
  return is ? 'yes' : 'no';
}

// <linux/netfilter/nf_conntrack_common.h>: NF_CT_STATE_BIT and its like, which xt_state has, too.
const STATE_BITS = { invalid: 1, established: 2, related: 4, new: 8, untracked: 64 } as const;

export const STATES: readonly Packet['state'][] = Object.keys(STATE_BITS) as Packet['state'][];

/** The state as one bit. */
export function stateBit({ state }: Packet): number {
  return STATE_BITS[state];
}
