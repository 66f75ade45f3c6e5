/** Runs a program once, outside of any traffic (BPF_PROG_TEST_RUN in bpf(2)). Needs CAP_BPF and CAP_NET_ADMIN. */
import * as native from '../native.ts';
import { mustBpf } from './syscall.ts';

// <linux/bpf.h>
const BPF_PROG_TEST_RUN = 10;
const ATTR_SIZE = 80;

/** What a device's program returns for a frame. */
export function testRun(program: number, frame: Uint8Array): number {
  const attributes = native.structure(ATTR_SIZE, { 16: frame });
  attributes.view.setUint32(0, program, true);
  attributes.view.setUint32(8, frame.length, true);
  mustBpf(BPF_PROG_TEST_RUN, attributes, 'to try a program');
  return attributes.view.getInt32(4, true);
}
