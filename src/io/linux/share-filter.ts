/**
 * Every raw socket gets a copy of every packet (raw(7)): where several workers receive, a filter (Documentation/networking/filter.rst) leaves each packet to
 * one of them, all of a flow to the same.
 */
import * as native from './native.ts';

/** Which share of the packets a socket takes. */
export interface Share {
  index: number;
  count: number;
  /** Bytes in the outer headers, as this VM writes them. */
  header: number;
}

// <linux/bpf_common.h>, <linux/filter.h>
const LD_LENGTH = 0x80;
const LD_WORD_AT_X = 0x40;
const LDX_HEADER_LENGTH = 0xb1; // X = 4 * (byte k & 15)
const LDX_MEMORY = 0x61;
const STORE = 0x02;
const SUBTRACT_X = 0x1c;
const ADD_X = 0x0c;
const MULTIPLY = 0x24;
const SHIFT_RIGHT = 0x74;
const MODULO = 0x94;
const JUMP_IF_EQUAL = 0x15;
const JUMP_IF_AT_LEAST = 0x35;
const RETURN = 0x06;
const INSTRUCTION_SIZE = 8;
const ALL = 0x40000;
const GOLDEN_RATIO = 0x9e3779b1;

/** Lets the socket take only its share of the GRE packets; those too short to have inner addresses go to the first. */
export function attachFilter(fd: number, { index, count, header }: Share): void {
  const inner = header - 20; // behind the outer IPv4 header
  const instructions: [code: number, k: number, ifTrue?: number, ifFalse?: number][] = [
    [LDX_HEADER_LENGTH, 0],
    [LD_LENGTH, 0],
    [SUBTRACT_X, 0],
    [JUMP_IF_AT_LEAST, inner + 20, 1, 0],
    [RETURN, index === 0 ? ALL : 0],
    [LD_WORD_AT_X, inner + 12],
    [STORE, 0],
    [LD_WORD_AT_X, inner + 16],
    [LDX_MEMORY, 0],
    [ADD_X, 0],
    [MULTIPLY, GOLDEN_RATIO],
    [SHIFT_RIGHT, 16],
    [MODULO, count],
    [JUMP_IF_EQUAL, index, 0, 1],
    [RETURN, ALL],
    [RETURN, 0],
  ];
  const program = new Uint8Array(instructions.length * INSTRUCTION_SIZE);
  const view = new DataView(program.buffer);
  for (const [i, [code, k, ifTrue = 0, ifFalse = 0]] of instructions.entries()) {
    const at = i * INSTRUCTION_SIZE;
    view.setUint16(at, code, true);
    view.setUint8(at + 2, ifTrue);
    view.setUint8(at + 3, ifFalse);
    view.setUint32(at + 4, k, true);
  }
  // struct sock_fprog { unsigned short length; struct sock_filter *filter; }
  const fprog = BigUint64Array.of(BigInt(instructions.length), BigInt(native.pointer(program)));
  const bytes = new Uint8Array(fprog.buffer);
  native.must(
    native.setsockopt(fd, native.SOL_SOCKET, native.SO_ATTACH_FILTER, bytes, bytes.length),
    'setsockopt',
    'SO_ATTACH_FILTER',
  );
}
