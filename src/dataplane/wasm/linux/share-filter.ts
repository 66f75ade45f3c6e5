/**
 * Every raw socket gets a copy of every packet (raw(7)): where several workers receive, a filter (Documentation/networking/filter.rst) leaves each packet to
 * one of them, all of a flow to the same.
 */
import {
  ADD_X,
  ALL,
  assemble,
  jumpIfAtLeast,
  jumpIfEqual,
  LD_LENGTH,
  LD_WORD_AT_X,
  LDX_HEADER_LENGTH,
  LDX_MEMORY,
  MODULO,
  MULTIPLY,
  RETURN,
  SHIFT_RIGHT,
  type SocketFilter,
  STORE,
  SUBTRACT_X,
} from '../../../linux/socket-filter.ts';

/** Which share of the packets a socket takes. */
export interface Share {
  index: number;
  count: number;
  /** Bytes in the outer headers, as this VM writes them. */
  header: number;
}

/** 2^32 divided by it: what spreads a sum over all bits. */
export const GOLDEN_RATIO = 0x9e3779b1;

/** The filter of a socket that takes only its share of the GRE packets; those too short to have inner addresses go to the first. */
export function shareFilter({ index, count, header }: Share): SocketFilter {
  const inner = header - 20; // behind the outer IPv4 header
  return assemble([
    [LDX_HEADER_LENGTH, 0],
    [LD_LENGTH, 0],
    [SUBTRACT_X, 0],
    jumpIfAtLeast(inner + 20, 'long enough'),
    [RETURN, index === 0 ? ALL : 0],
    { label: 'long enough' },
    [LD_WORD_AT_X, inner + 12],
    [STORE, 0],
    [LD_WORD_AT_X, inner + 16],
    [LDX_MEMORY, 0],
    [ADD_X, 0],
    [MULTIPLY, GOLDEN_RATIO],
    [SHIFT_RIGHT, 16],
    [MODULO, count],
    jumpIfEqual(index, 'take', 'leave'),
    { label: 'take' },
    [RETURN, ALL],
    { label: 'leave' },
    [RETURN, 0],
  ]);
}
