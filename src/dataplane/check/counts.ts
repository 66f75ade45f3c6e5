/** What the programs that check sources count: packets, bytes and drops of each direction, an example of each drop, and the traffic of each VM. */
import * as abi from '../../core/abi.ts';
import * as bpf from '../../linux/bpf/assembler.ts';
import { SKB_GSO_SEGMENTS, SKB_LENGTH, SKB_PROTOCOL } from '../../linux/bpf/skb.ts';
import { SOURCE } from './arithmetic.ts';
import { IPV4, OFFSET, SKB, TC_ACT_SHOT, TC_ACT_UNSPEC } from './header-loads.ts';

/** The counters' words: packets and bytes of a direction, its drops by reason, and an example of each reason. */
export const PACKETS = 0;
export const TOTAL_BYTES = 1;
/** Plus the negated verdict. */
export const DROPS = 2;
/**
 * Plus EXAMPLE_WORDS for each negated verdict: four u32, inner source, inner destination, the VM that it came from or was about to go to, and 0. An address
 * that is not known is 0.
 */
export const EXAMPLES: number = DROPS + abi.VERDICTS;
export const EXAMPLE_WORDS = 2;
const DIRECTION_WORDS = EXAMPLES + EXAMPLE_WORDS * abi.VERDICTS;
export const OUTBOUND = 0;
export const INBOUND: number = DIRECTION_WORDS;
export const COUNTER_WORDS: number = 2 * DIRECTION_WORDS;

/** Of a VM: packets and bytes outbound, then inbound. */
export const VM_WORDS = 4;

// On the stack, below its end.
const KEY = -4;

// Registers that calls leave alone, beside those of header-loads.ts; OFFSET is where the inner IPv4 header begins.
const COUNTERS = 7;
/** The remote VM: outbound where the packet is about to go, inbound where it says that it comes from. */
export const VM = 8;
/** A register until the next call, beside those of arithmetic.ts. */
export const DESTINATION = 5;

/** Descriptors. */
export type Maps = { counters: number; vms: number };

/** The counters; only IPv4 is for us. */
export function begin({ counters }: Maps): bpf.Line[] {
  return [
    bpf.copy(SKB, 1),
    bpf.storeDouble(bpf.STACK, KEY - 4, 0),
    ...bpf.loadMap(1, counters),
    bpf.copy(2, bpf.STACK),
    bpf.add(2, KEY),
    bpf.call(bpf.MAP_LOOKUP),
    bpf.jumpUnlessEqual(0, 0, 'counters'),
    bpf.set(0, TC_ACT_SHOT),
    bpf.exit,
    { label: 'counters' },
    bpf.copy(COUNTERS, 0),
    bpf.loadWord(1, SKB, SKB_PROTOCOL),
    bpf.jumpUnlessEqual(1, IPV4, 'not IPv4'),
  ];
}

/** Which addresses are in their registers where a packet is dropped: SOURCE and DESTINATION, and VM. */
type Known = { inner?: true; outer?: true };

/** Counts a packet that goes no further, and keeps the addresses that are known as the example of its reason. */
export function drop(verdict: number, direction: number, known: Known = {}): bpf.Line[] {
  const at = 8 * (direction + DROPS - verdict);
  const example = 8 * (direction + EXAMPLES - EXAMPLE_WORDS * verdict);
  return [
    ...(known.inner
      ? [bpf.storeWord(COUNTERS, example, SOURCE), bpf.storeWord(COUNTERS, example + 4, DESTINATION)]
      : []),
    ...(known.outer ? [bpf.storeWord(COUNTERS, example + 8, VM)] : []),
    bpf.set(2, 1),
    ...count(at, 2),
    bpf.set(0, TC_ACT_SHOT),
    bpf.exit,
  ];
}

/** Adds a register to a counter; no other processor has it. Register 1 is used. */
function count(at: number, from: number): bpf.Instruction[] {
  return [bpf.loadDouble(1, COUNTERS, at), bpf.addRegister(1, from), bpf.storeDoubleFrom(COUNTERS, at, 1)];
}

/** Counts the packet, for all and for its VM, and lets it through; and the drops that both directions have. */
export function end(direction: number, { vms }: Maps): bpf.Line[] {
  return [
    { label: 'count' },
    bpf.storeWord(bpf.STACK, KEY, VM),
    // Register 8 has the packets from here on, 9 the bytes: those of inner packets.
    bpf.loadWord(1, SKB, SKB_LENGTH),
    bpf.subtractRegister(1, OFFSET),
    bpf.copy(OFFSET, 1),
    bpf.loadWord(VM, SKB, SKB_GSO_SEGMENTS),
    bpf.jumpUnlessEqual(VM, 0, 'cut'),
    bpf.set(VM, 1),
    { label: 'cut' },
    ...count(8 * (direction + PACKETS), VM),
    ...count(8 * (direction + TOTAL_BYTES), OFFSET),
    ...bpf.loadMap(1, vms),
    bpf.copy(2, bpf.STACK),
    bpf.add(2, KEY),
    bpf.call(bpf.MAP_LOOKUP),
    // In a plan of more VMs than the map has room for.
    bpf.jumpIfEqual(0, 0, 'through'),
    bpf.addAtomically(0, direction === OUTBOUND ? 0 : 16, VM),
    bpf.addAtomically(0, direction === OUTBOUND ? 8 : 24, OFFSET),
    { label: 'through' },
    bpf.set(0, TC_ACT_UNSPEC),
    bpf.exit,
    { label: 'truncated' },
    ...drop(abi.DROP_TRUNCATED, direction),
    { label: 'not IPv4' },
    ...drop(abi.DROP_NOT_IPV4, direction),
    { label: 'nested' },
    ...drop(abi.DROP_NESTED_GRE, direction, { inner: true }),
    { label: 'reserved' },
    ...drop(abi.DROP_RESERVED_ADDRESS, direction, { inner: true }),
  ];
}
