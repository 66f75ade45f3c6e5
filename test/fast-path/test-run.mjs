/** A program run by the kernel itself on a frame (BPF_PROG_TEST_RUN), with as little as possible around it: millions of frames are. */
import os from 'node:os';
import * as native from '../../dist/linux/native.js';

// bpf(2), <linux/bpf.h>
const BPF = { x64: 321, arm64: 280 }[os.arch()];
const BPF_PROG_TEST_RUN = 10;
const ATTRIBUTES_SIZE = 80;
const [PROGRAM, VERDICT, LENGTH_IN, LENGTH_OUT, REPEAT, SKB_SIZE_IN, SKB_SIZE_OUT] = [0, 4, 8, 12, 32, 40, 44];
const [FRAME_IN, FRAME_OUT, SKB_IN, SKB_OUT] = [16, 24, 48, 56];
/** struct __sk_buff */
const SKB_SIZE = 192;
const [SKB_MARK, SKB_PRIORITY, SKB_INGRESS_IFINDEX, SKB_IFINDEX, SKB_GSO_SEGMENTS, SKB_GSO_SIZE] = [
  8, 32, 36, 40, 164, 176,
];
/** The kernel takes no more than fits a page with what it needs itself. */
const LONGEST_FRAME = 3600;
/** It takes no frame that says that it is IPv4, or IPv6, and has no header. */
const [SHORTEST, SHORTEST_IPV6] = [34, 54];
const ROOM = 256;

/** TC_ACT_UNSPEC and TC_ACT_REDIRECT (<linux/pkt_cls.h>). */
export const PASSED = -1;
export const REDIRECTED = 7;

const { bytes, view, pointed } = native.structure(ATTRIBUTES_SIZE, {
  [FRAME_IN]: new Uint8Array(LONGEST_FRAME),
  [FRAME_OUT]: new Uint8Array(LONGEST_FRAME + ROOM),
  [SKB_IN]: new Uint8Array(SKB_SIZE),
  [SKB_OUT]: new Uint8Array(SKB_SIZE),
});
const skb = new DataView(bytes.buffer, pointed[SKB_IN].byteOffset, SKB_SIZE);
const skbOut = new DataView(bytes.buffer, pointed[SKB_OUT].byteOffset, SKB_SIZE);

/** Marks that a program has to leave: those of the frame before it. */
const [MARK, PRIORITY] = [0x12345678, 3];

/**
 * Runs a program on a frame that comes in by a link of the thread's namespace. `gsoSize` is that of a super-packet.
 * Returns the verdict, and the frame afterwards, valid until the next call.
 */
export function testRun(program, frame, ifindex, gsoSize = 0, gsoSegments = 0) {
  pointed[FRAME_IN].set(frame);
  skb.setUint32(SKB_MARK, MARK, true);
  skb.setUint32(SKB_PRIORITY, PRIORITY, true);
  skb.setUint32(SKB_INGRESS_IFINDEX, ifindex, true);
  skb.setUint32(SKB_IFINDEX, ifindex, true);
  skb.setUint32(SKB_GSO_SEGMENTS, gsoSegments, true);
  skb.setUint32(SKB_GSO_SIZE, gsoSize, true);
  view.setUint32(PROGRAM, program, true);
  view.setUint32(LENGTH_IN, frame.length, true);
  view.setUint32(LENGTH_OUT, LONGEST_FRAME + ROOM, true);
  view.setUint32(REPEAT, 1, true);
  view.setUint32(SKB_SIZE_IN, SKB_SIZE, true);
  view.setUint32(SKB_SIZE_OUT, SKB_SIZE, true);
  native.must(native.syscall(BPF, BPF_PROG_TEST_RUN, bytes, ATTRIBUTES_SIZE), 'bpf', 'for a test run');
  const isMarked = skbOut.getUint32(SKB_MARK, true) !== MARK || skbOut.getUint32(SKB_PRIORITY, true) !== PRIORITY;
  return {
    verdict: view.getInt32(VERDICT, true),
    frame: pointed[FRAME_OUT].subarray(0, view.getUint32(LENGTH_OUT, true)),
    isMarked,
  };
}

/** Whether a frame can be given to a program. */
export function canRun(frame) {
  const isIpv6 = frame[12] === 0x86 && frame[13] === 0xdd;
  return frame.length >= (isIpv6 ? SHORTEST_IPV6 : SHORTEST) && frame.length <= LONGEST_FRAME;
}
