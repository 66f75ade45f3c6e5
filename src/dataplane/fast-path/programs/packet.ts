/** What both programs have in common: where things are, how they begin and end, look at headers and into maps, and count. */
import * as bpf from '../../../linux/bpf/assembler.ts';
import { R0, R1, R2, R3, STACK } from '../../../linux/bpf/assembler.ts';
import {
  SKB_DATA,
  SKB_DATA_END,
  SKB_LENGTH,
  SKB_PACKET_TYPE,
  SKB_PROTOCOL,
  SKB_VLAN_PRESENT,
} from '../../../linux/bpf/skb.ts';
import type { Label } from '../../../linux/labels.ts';
import { IPPROTO_GRE, IPPROTO_TCP } from '../../../linux/protocols.ts';
import { type Address, lowBits, netmask } from '../../../mesh/address.ts';
import { type Mapping, mappingsWith } from '../../../mesh/mapping.ts';
import { ETHERNET_HEADER, IPV4, IPV4_HEADER, TC_ACT_SHOT, TC_ACT_UNSPEC } from '../../check/header-loads.ts';
import { slotPlacesOf } from '../places.ts';
import { SETTING_ALIVE, SETTING_UNTIL } from '../state.ts';

// Registers that calls leave alone.
export const SKB = bpf.R6;
/** Where the frame begins, until its room is changed. */
export const PACKET = bpf.R7;

// On the stack, below its end: a u32 key; the device's MTU; u64 packets and bytes; the u32 interface index of where
// the packet goes; bytes of the longest packet in it; u64 ns, when the program began.
export const KEY = -4;
export const MTU = -8;
export const PACKETS = -16;
export const BYTES = -24;
export const LINK = -28;
export const LONGEST = -32;
const NOW = -40;
/** Headers that are about to be put, 64 bytes. */
export const HEADERS = -104;

// Offsets in an IPv4 header.
export const TYPE_OF_SERVICE = 1;
const TOTAL_LENGTH = 2;
export const FRAGMENT = 6;
export const TIME_TO_LIVE = 8;
export const PROTOCOL = 9;
export const CHECKSUM = 10;
export const SOURCE = 12;
export const DESTINATION = 16;
/** More fragments, and the fragment offset: as the field lies in memory. */
export const FRAGMENT_BITS = 0xff3f;
const TCP_FLAGS: number = IPV4_HEADER + 13;
const TCP_SYN = 0x02;
export const TCP_HEADER = 20;

/** Version 4, and 5 words of header: without options. */
export const PLAIN_HEADER = 0x45;
/** PACKET_HOST (<linux/if_packet.h>). */
const PACKET_HOST = 0;

/** Goes to 'pass' unless this is IPv4 in a frame that is for this device, and packets are to be taken now. */
export function begin(settings: number): bpf.Line[] {
  return [
    bpf.copy(SKB, R1),
    bpf.loadWord(R1, SKB, SKB_PROTOCOL),
    bpf.jumpUnlessEqual(R1, IPV4, 'pass'),
    bpf.loadWord(R1, SKB, SKB_PACKET_TYPE),
    bpf.jumpUnlessEqual(R1, PACKET_HOST, 'pass'),
    bpf.loadWord(R1, SKB, SKB_VLAN_PRESENT),
    bpf.jumpUnlessEqual(R1, 0, 'pass'),
    bpf.call(bpf.KTIME_GET_COARSE_NS),
    bpf.storeDoubleFrom(STACK, NOW, R0),
    ...unlessBefore(settings, SETTING_UNTIL, 'pass'),
  ];
}

/** Goes to `late` if the time of a setting has come. */
function unlessBefore(settings: number, time: number, late: Label): bpf.Line[] {
  return [
    ...bpf.loadMapValue(R1, settings),
    bpf.loadDouble(R1, R1, time),
    bpf.loadDouble(R2, STACK, NOW),
    bpf.jumpUnlessBelowRegister(R2, R1, late),
  ];
}

/** Goes to `gone` if the daemon gives no sign of life. */
export function unlessAlive(settings: number, gone: Label): bpf.Line[] {
  return unlessBefore(settings, SETTING_ALIVE, gone);
}

/** The ends that both programs have. */
export function end(): bpf.Line[] {
  return [
    { label: 'pass' },
    bpf.set(R0, TC_ACT_UNSPEC),
    bpf.exit,
    // The headers are half done. This takes a kernel without memory.
    { label: 'broken' },
    bpf.set(R0, TC_ACT_SHOT),
    bpf.exit,
  ];
}

/**
 * Points PACKET to the frame, of which at least so many bytes are in one piece; goes to 'pass' if it is shorter. They end with an IPv4
 * header. Where the kernel has to put bytes together, it does so with those of a TCP header, too.
 */
export function pointTo(bytes: number): bpf.Line[] {
  const [ready, short] = [Symbol('ready'), Symbol('no TCP header')];
  const point = [
    bpf.loadWord(PACKET, SKB, SKB_DATA),
    bpf.loadWord(R2, SKB, SKB_DATA_END),
    bpf.copy(R3, PACKET),
    bpf.add(R3, bytes),
    bpf.jumpUnlessAbove(R3, R2, ready),
  ];
  return [
    ...point,
    bpf.copy(R1, SKB),
    bpf.loadWord(R2, SKB, SKB_LENGTH),
    bpf.jumpIfBelow(R2, bytes + TCP_HEADER, short),
    bpf.set(R2, bytes + TCP_HEADER),
    { label: short },
    bpf.call(bpf.SKB_PULL_DATA),
    bpf.jumpUnlessEqual(R0, 0, 'pass'),
    ...point,
    bpf.jump('pass'),
    { label: ready },
  ];
}

/** Register = bytes in the packet whose IPv4 header is at `at`. */
export function totalLength(to: number, at: number): bpf.Instruction[] {
  return [bpf.loadHalf(to, PACKET, at + TOTAL_LENGTH), bpf.fromNetwork16(to)];
}

/** Register = an address. */
export function address(to: number, at: number): bpf.Instruction[] {
  return [bpf.loadWord(to, PACKET, at), bpf.fromNetwork32(to)];
}

/** Goes to 'pass' unless the IPv4 header at `at` has no options, and its checksum is right (RFC 1071 §1). */
export function checkHeader(at: number): bpf.Line[] {
  return [
    bpf.loadByte(R1, PACKET, at),
    bpf.jumpUnlessEqual(R1, PLAIN_HEADER, 'pass'),
    bpf.loadWord(R1, PACKET, at),
    ...[4, 8, 12, 16].flatMap((word) => [bpf.loadWord(R2, PACKET, at + word), bpf.addRegister(R1, R2)]),
    // Three times: it has 35 bits.
    ...fold(R1),
    ...fold(R1),
    ...fold(R1),
    bpf.jumpUnlessEqual(R1, 0xffff, 'pass'),
  ];
}

/** Goes to 'pass' unless the frame ends where the packet does whose header is at its beginning. */
export function checkLength(): bpf.Line[] {
  return [
    ...totalLength(R1, ETHERNET_HEADER),
    bpf.add(R1, ETHERNET_HEADER),
    bpf.loadWord(R2, SKB, SKB_LENGTH),
    bpf.jumpUnlessSame32(R1, R2, 'pass'),
  ];
}

/** Goes to 'pass' if the inner packet at `at` may not be forwarded, or is a tunnel's. */
export function checkInner(at: number): bpf.Line[] {
  return [
    bpf.loadByte(R1, PACKET, at + TIME_TO_LIVE),
    bpf.jumpIfBelow(R1, 2, 'pass'),
    bpf.loadByte(R1, PACKET, at + PROTOCOL),
    bpf.jumpIfEqual(R1, IPPROTO_GRE, 'pass'),
  ];
}

/** Goes to 'pass' if the packet at `at` opens a TCP connection: its segment size is to be clamped. */
export function unlessSyn(at: number): bpf.Line[] {
  const other = Symbol('no SYN');
  return [
    bpf.loadByte(R1, PACKET, at + PROTOCOL),
    bpf.jumpUnlessEqual(R1, IPPROTO_TCP, other),
    ...within(at + IPV4_HEADER + TCP_HEADER),
    bpf.loadByte(R1, PACKET, at + TCP_FLAGS),
    bpf.jumpIfAny(R1, TCP_SYN, 'pass'),
    { label: other },
  ];
}

/** Goes to 'pass' unless so many bytes of the frame are in one piece. */
export function within(bytes: number): bpf.Line[] {
  return [
    bpf.loadWord(R2, SKB, SKB_DATA_END),
    bpf.copy(R1, PACKET),
    bpf.add(R1, bytes),
    bpf.jumpIfAboveRegister(R1, R2, 'pass'),
  ];
}

/** Turns the overlay address in a register into the key of its slot; goes to 'pass' if it is in no slice of this VM. */
export function slotKey(mappings: readonly Mapping[], local: Address, register: number): bpf.Line[] {
  const found = Symbol('slot');
  const places = slotPlacesOf(mappings, local);
  return [
    ...mappingsWith(mappings, local).flatMap((mapping, i): bpf.Line[] => {
      const { bits, length } = mapping.sliceOf(local);
      const next = Symbol('next slice');
      return [
        bpf.copy(R3, register),
        bpf.and32(R3, netmask(length)),
        bpf.jumpUnlessEqual32(R3, Number(bits), next),
        bpf.and32(register, Number(lowBits(mapping.containerBits))),
        bpf.add(register, places[i] as number),
        bpf.jump(found),
        { label: next },
      ];
    }),
    bpf.jump('pass'),
    { label: found },
  ];
}

/** R0 = where the value is that has the key on the stack; goes to `otherwise` if there is none. */
export function lookUp(map: number, otherwise: Label = 'pass'): bpf.Line[] {
  return [
    ...bpf.loadMap(R1, map),
    bpf.copy(R2, STACK),
    bpf.add(R2, KEY),
    bpf.call(bpf.MAP_LOOKUP),
    bpf.jumpIfEqual(R0, 0, otherwise),
  ];
}

/**
 * Goes to 'pass' once in a while, so that the data plane hears of the tunnel, unless the daemon has gone; `fresh` is the flag's offset in
 * a VM's record. Registers 1 and 2 are used.
 */
export function unlessFresh(settings: number, record: number, fresh: number): bpf.Line[] {
  const isFresh = Symbol('fresh');
  return [
    bpf.loadWord(R1, record, fresh),
    bpf.jumpUnlessEqual(R1, 0, isFresh),
    ...unlessAlive(settings, isFresh),
    bpf.storeWordOf(record, fresh, 1),
    bpf.jump('pass'),
    { label: isFresh },
  ];
}

/** A register that calls leave alone = the counters of this processor. */
export function pointToCounts(to: number, counts: number): bpf.Line[] {
  return [bpf.storeWordOf(STACK, KEY, 0), ...lookUp(counts), bpf.copy(to, R0)];
}

/** Adds the packet to the counters at `which`, and to those of a VM. */
export function count(counts: number, which: number, vm?: { record: number; offset: number }): bpf.Line[] {
  return [
    { at: 0, from: PACKETS },
    { at: 8, from: BYTES },
  ].flatMap(({ at, from }) => [
    bpf.loadDouble(R1, STACK, from),
    bpf.loadDouble(R2, counts, which + at),
    bpf.addRegister(R2, R1),
    bpf.storeDoubleFrom(counts, which + at, R2),
    ...(vm ? [bpf.addAtomically(vm.record, vm.offset + at, R1)] : []),
  ]);
}

/** Folds a sum of 16-bit words once. R2 is used. */
export function fold(register: number): bpf.Instruction[] {
  return [bpf.copy(R2, register), bpf.shiftRight64(R2, 16), bpf.and32(register, 0xffff), bpf.addRegister(register, R2)];
}
