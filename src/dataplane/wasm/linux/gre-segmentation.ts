/**
 * Lets the kernel cut super-packets of GRE that we write to the TUN device and that it forwards to the underlay.
 *
 * The virtio header can say where the inner TCP header is, but not that there is an outer one (before Linux 6.17 for UDP, never for GRE), and without that
 * gre_gso_segment() refuses to cut. A small eBPF program, where packets come in from the device, takes the outer headers off super-packets and puts them on
 * again as an encapsulation that the kernel knows of (bpf_skb_adjust_room in bpf-helpers(7)). It goes when its descriptor is closed.
 */
import {
  add,
  assemble,
  call,
  copy,
  exit,
  type Instruction,
  jumpIfEqual,
  jumpUnlessEqual,
  type Line,
  loadByte,
  loadWord,
  SKB_ADJUST_ROOM,
  SKB_LOAD_BYTES,
  SKB_STORE_BYTES,
  STACK,
  set,
} from '../../../linux/bpf/assembler.ts';
import { loadProgram } from '../../../linux/bpf/program.ts';
import { ROOM_AT_MAC, ROOM_ENCAP_GRE, ROOM_ENCAP_IPV4, ROOM_FIXED_GSO, SKB_GSO_SIZE } from '../../../linux/bpf/skb.ts';
import { attachTcx } from '../../../linux/bpf/tcx.ts';
import * as native from '../../../linux/native.ts';
import { IPPROTO_GRE } from '../../../linux/protocols.ts';

// <linux/bpf.h>
const TCX_NEXT = -1;
const TCX_DROP = 2;
const PROTOCOL_OFFSET = 9; // in the IPv4 header
const WHAT = 'for GRE segmentation';

/** Attaches the program to the device `name`, whose super-packets have outer headers of `outer` bytes; throws if the kernel cannot. Returns the descriptor that holds it there. */
export function attachGreSegmentation(name: string, outer: number): number {
  // Not from /sys, which may show another network namespace.
  const ifindex = native.ifNameToIndex(name);
  const program = loadProgram(assemble(markProgram(outer)), WHAT);
  try {
    return attachTcx(program, ifindex, 'ingress', WHAT);
  } finally {
    native.close(program); // A link holds it.
  }
}

/** Marks what is GRE and GSO; all else goes on as it is. */
function markProgram(outer: number): Line[] {
  // r6: the packet, r1 to r5: arguments, r0: result. A failure drops the packet: unmarked, it could not be cut.
  const helper = (id: number, ...args: Instruction[]): Line[] => [
    copy(1, 6),
    ...args,
    call(id),
    jumpUnlessEqual(0, 0, 'drop'),
  ];
  const onStack = [copy(3, STACK), add(3, -outer), set(4, outer)];
  return [
    copy(6, 1),
    loadWord(2, 6, SKB_GSO_SIZE),
    jumpIfEqual(2, 0, 'next'),
    ...helper(SKB_LOAD_BYTES, set(2, 0), ...onStack),
    loadByte(2, STACK, PROTOCOL_OFFSET - outer),
    jumpUnlessEqual(2, IPPROTO_GRE, 'next'),
    ...helper(SKB_ADJUST_ROOM, set(2, -outer), set(3, ROOM_AT_MAC), set(4, ROOM_FIXED_GSO)),
    ...helper(
      SKB_ADJUST_ROOM,
      set(2, outer),
      set(3, ROOM_AT_MAC),
      set(4, ROOM_FIXED_GSO | ROOM_ENCAP_IPV4 | ROOM_ENCAP_GRE),
    ),
    ...helper(SKB_STORE_BYTES, set(2, 0), ...onStack, set(5, 0)),
    { label: 'next' },
    set(0, TCX_NEXT),
    exit,
    { label: 'drop' },
    set(0, TCX_DROP),
    exit,
  ];
}
