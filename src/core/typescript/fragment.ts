/**
 * Fragmenting inner packets that do not fit their tunnel, where they may be (RFC 791 §3.2): the containers' hosts put
 * them together again, and the underlay never has to.
 */
import { copy, loadU8, type Memory, storeU8 } from './bytes.ts';
import * as ipv4 from './ipv4.ts';
import { NO_OPERATION, optionLength } from './options.ts';

/** Set in the first byte of an option that is in all fragments; the others are in the first only (RFC 791 §3.1). */
const COPIED = 0x80;

/** Of a number of bytes, what is a number of units of 8: so much is in all fragments but the last, which holds what fits. */
const WHOLE_UNITS = ~7;

/** How many fragments of at most `limit` bytes a packet of `total` bytes makes, of which `header` are the IPv4 header. */
export function fragmentsOf(total: number, header: number, limit: number): number {
  const most = limit - header;
  return 1 + Math.max(Math.ceil((total - limit) / (most & WHOLE_UNITS)), 0);
}

/** Bytes of data in the next fragment, if `rest` are left and `most` fit. */
export function nextLength(rest: number, most: number): number {
  return rest <= most ? rest : most & WHOLE_UNITS;
}

/** Puts at `f` the header of the fragment of the packet at `p` with `length` bytes of data, from `offset` on. */
export function putFragment(memory: Memory, f: number, p: number, offset: number, length: number): void {
  const header = ipv4.headerLength(memory, p);
  copy(memory, f, p, header);
  if (offset !== 0) dropOptions(memory, f, header);

  const old = ipv4.flagsAndOffset(memory, p);
  const isLast = header + offset + length === ipv4.totalLength(memory, p);
  const more = isLast ? old & ipv4.MORE_FRAGMENTS : ipv4.MORE_FRAGMENTS;
  const place = (old + offset / 8) & ipv4.OFFSET_MASK;
  ipv4.putFlagsAndOffset(memory, f, (old & ipv4.RESERVED_FLAG) | more | place);
  ipv4.putTotalLength(memory, f, header + length);
}

/** Overwrites the options that are in the first fragment only; the header keeps its length. */
function dropOptions(memory: Memory, f: number, header: number): void {
  const end = f + header;
  for (let o = f + ipv4.IPV4_LENGTH; o < end; ) {
    const length = optionLength(memory, o, end);
    if (length === 0) return;
    if ((loadU8(memory, o) & COPIED) === 0) {
      for (let i = 0; i < length; i++) storeU8(memory, o + i, NO_OPERATION);
    }
    o += length;
  }
}
