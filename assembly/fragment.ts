/** Fragments of inner packets that are too long for a tunnel (RFC 791 §3.2, RFC 7588 §3). */
import {
  flagsAndOffset,
  headerLength,
  IPV4_LENGTH,
  MORE_FRAGMENTS,
  OFFSET_MASK,
  putFlagsAndOffset,
  putTotalLength,
  RESERVED_FLAG,
} from './ipv4';
import { NO_OPERATION, optionLength } from './options';

/** The copied flag, the first bit of an option: it is in all fragments (RFC 791 §3.1). */
const COPIED: u32 = 0x80;

/** How many fragments of at most `limit` bytes a packet of `total` bytes with `header` bytes of header becomes. */
export function fragmentsOf(total: i32, header: i32, limit: i32): i32 {
  const whole = (limit - header) & ~7;
  return total <= limit ? 1 : 1 + (total - limit + whole - 1) / whole;
}

/** Bytes of data in the next fragment, if `rest` are left and at most `most` fit: whole units of 8, but in the last. */
export function nextLength(rest: i32, most: i32): i32 {
  return rest <= most ? rest : most & ~7;
}

/** Writes the header of a fragment at `h`: that of the packet at `p`, for `length` bytes of its data from byte `offset` on. */
export function putFragment(h: usize, p: usize, offset: i32, length: i32, isLast: bool): void {
  const header = headerLength(p);
  memory.copy(h, p, header);
  if (offset !== 0) clearOptions(h + IPV4_LENGTH, h + <usize>header);
  const before = flagsAndOffset(p);
  const more = isLast ? before & MORE_FRAGMENTS : MORE_FRAGMENTS;
  putFlagsAndOffset(h, (before & RESERVED_FLAG) | more | ((before + (<u32>offset >> 3)) & OFFSET_MASK));
  putTotalLength(h, header + length);
}

/** Leaves only the options that are to be copied, as Linux does it (ip_options_fragment, net/ipv4/ip_options.c): with no operation instead of the others. */
function clearOptions(first: usize, end: usize): void {
  let length = optionLength(first, end);
  for (let option = first; length !== 0; length = optionLength(option, end)) {
    if ((<u32>load<u8>(option) & COPIED) === 0) memory.fill(option, <u8>NO_OPERATION, length);
    option += length;
  }
}
