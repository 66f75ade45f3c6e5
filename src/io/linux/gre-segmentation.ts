/**
 * Lets the kernel cut super-packets of GRE that we write to the TUN device and that it forwards to the underlay.
 *
 * The virtio header can say where the inner TCP header is, but not that there is an outer one (before Linux 6.17 for UDP, never for GRE), and without that
 * gre_gso_segment() refuses to cut. A small eBPF program, where packets come in from the device, takes the outer headers off super-packets and puts them on
 * again as an encapsulation that the kernel knows of (bpf_skb_adjust_room in bpf-helpers(7)). It goes when its descriptor is closed.
 */
import os from 'node:os';
import * as native from './native.ts';

/** bpf(2), by architecture (<asm/unistd.h>). */
const SYSCALL_NUMBERS: Partial<Record<string, number>> = { x64: 321, arm64: 280 };

// <linux/bpf.h>
const BPF_PROG_LOAD = 5;
const BPF_LINK_CREATE = 28;
const BPF_PROG_TYPE_SCHED_CLS = 3;
const BPF_TCX_INGRESS = 46;
const SKB_GSO_SIZE = 176; // offset in struct __sk_buff
const SKB_LOAD_BYTES = 26;
const SKB_STORE_BYTES = 9;
const SKB_ADJUST_ROOM = 50;
const ROOM_AT_MAC = 1;
const ROOM_FIXED_GSO = 1;
const ROOM_ENCAP_IPV4 = 2;
const ROOM_ENCAP_GRE = 8;
const TCX_NEXT = -1;
const TCX_DROP = 2;
const PROG_ATTR_SIZE = 48;
const LINK_ATTR_SIZE = 16;
const STACK = 10; // the register that points to the end of the stack
const PROTOCOL_OFFSET = 9; // in the IPv4 header

type Instruction = readonly [code: number, destination: number, source: number, offset: number, immediate: number];

const loadWord = (to: number, from: number, offset: number): Instruction => [0x61, to, from, offset, 0];
const loadByte = (to: number, from: number, offset: number): Instruction => [0x71, to, from, offset, 0];
const set = (to: number, value: number): Instruction => [0xb7, to, 0, 0, value];
const copy = (to: number, from: number): Instruction => [0xbf, to, from, 0, 0];
const add = (to: number, value: number): Instruction => [0x07, to, 0, 0, value];
const call = (helper: number): Instruction => [0x85, 0, 0, 0, helper];
const skipIfEqual = (register: number, value: number, count: number): Instruction => [0x15, register, 0, count, value];
const skipUnlessEqual = (register: number, value: number, count: number): Instruction => [
  0x55,
  register,
  0,
  count,
  value,
];
const exit: Instruction = [0x95, 0, 0, 0, 0];

/** Attaches the program to the device `name`, whose super-packets have outer headers of `outer` bytes; throws if the kernel cannot. */
export function attachGreSegmentation(name: string, outer: number): void {
  // Not from /sys, which may show another network namespace.
  const ifindex = native.ifNameToIndex(name);
  const program = load(markProgram(outer));
  const attributes = new DataView(new ArrayBuffer(LINK_ATTR_SIZE));
  attributes.setUint32(0, program, true);
  attributes.setUint32(4, ifindex, true);
  attributes.setUint32(8, BPF_TCX_INGRESS, true);
  try {
    bpf(BPF_LINK_CREATE, attributes, 'for GRE segmentation');
  } finally {
    native.close(program); // A link holds it.
  }
}

/** Marks what is GRE and GSO; all else goes on as it is. */
function markProgram(outer: number): Instruction[] {
  // r6: the packet, r1 to r5: arguments, r0: result. A failure drops the packet: unmarked, it could not be cut.
  const helper = (id: number, ...args: Instruction[]) => [
    copy(1, 6),
    ...args,
    call(id),
    skipIfEqual(0, 0, 2),
    set(0, TCX_DROP),
    exit,
  ];
  const onStack = [copy(3, STACK), add(3, -outer), set(4, outer)];
  return [
    copy(6, 1),
    loadWord(2, 6, SKB_GSO_SIZE),
    skipUnlessEqual(2, 0, 2),
    set(0, TCX_NEXT),
    exit,
    ...helper(SKB_LOAD_BYTES, set(2, 0), ...onStack),
    loadByte(2, STACK, PROTOCOL_OFFSET - outer),
    skipIfEqual(2, native.IPPROTO_GRE, 2),
    set(0, TCX_NEXT),
    exit,
    ...helper(SKB_ADJUST_ROOM, set(2, -outer), set(3, ROOM_AT_MAC), set(4, ROOM_FIXED_GSO)),
    ...helper(
      SKB_ADJUST_ROOM,
      set(2, outer),
      set(3, ROOM_AT_MAC),
      set(4, ROOM_FIXED_GSO | ROOM_ENCAP_IPV4 | ROOM_ENCAP_GRE),
    ),
    ...helper(SKB_STORE_BYTES, set(2, 0), ...onStack, set(5, 0)),
    set(0, TCX_NEXT),
    exit,
  ];
}

function load(instructions: readonly Instruction[]): number {
  const program = new DataView(new ArrayBuffer(instructions.length * 8));
  for (const [i, [code, destination, source, offset, immediate]] of instructions.entries()) {
    program.setUint8(i * 8, code);
    program.setUint8(i * 8 + 1, (source << 4) | destination);
    program.setInt16(i * 8 + 2, offset, true);
    program.setInt32(i * 8 + 4, immediate, true);
  }
  const license = new TextEncoder().encode('MIT\0');
  const attributes = new DataView(new ArrayBuffer(PROG_ATTR_SIZE));
  attributes.setUint32(0, BPF_PROG_TYPE_SCHED_CLS, true);
  attributes.setUint32(4, instructions.length, true);
  attributes.setBigUint64(8, BigInt(native.pointer(program)), true);
  attributes.setBigUint64(16, BigInt(native.pointer(license)), true);
  return bpf(BPF_PROG_LOAD, attributes, 'for GRE segmentation');
}

function bpf(command: number, attributes: DataView, what: string): number {
  const number = SYSCALL_NUMBERS[os.arch()];
  if (number === undefined) throw new Error(`bpf(2) has no known number on ${os.arch()}`);
  return native.must(native.syscall(number, command, native.pointer(attributes), attributes.byteLength), 'bpf', what);
}
