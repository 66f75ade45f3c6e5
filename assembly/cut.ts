/**
 * A super-packet becomes wire packets, segment for segment what Linux would send (inet_gso_segment, tcp_gso_segment, __udp_gso_segment): the headers are
 * made anew for each, the payload stays where it is.
 */
import { getU32 } from './bytes';
import { fold, sum } from './checksum';
import { headerLength, identification, protocol, putSegmentNetwork } from './ipv4';
import {
  CWR,
  FIN,
  never0,
  PROTOCOL_TCP,
  PSH,
  pseudoSum,
  TCP_CHECKSUM,
  TCP_OFFSET,
  TCP_SEQUENCE,
  UDP_CHECKSUM,
  UDP_LENGTH_FIELD,
} from './transport';

/**
 * The sum of what pseudo and TCP or UDP headers of all segments of the super-packet at `p` have in common, where `headers` is the length of all headers: all but
 * lengths and TCP's sequence number, flags and checksum.
 */
export function transportSum(p: usize, headers: i32): u64 {
  const ip = headerLength(p);
  const t = p + <usize>ip;
  const pseudo = pseudoSum(p, 0);
  if (protocol(p) !== PROTOCOL_TCP) return pseudo + <u64>load<u32>(t);
  const own = <u64>load<u32>(t + TCP_SEQUENCE) + <u64>load<u16>(t + TCP_OFFSET) + <u64>load<u16>(t + TCP_CHECKSUM);
  return sum(t, headers - ip, pseudo) - own;
}

/**
 * Puts the inner headers, `headers` bytes, of segment `n` of the super-packet at `p` to `h`; its payload is `length` bytes from byte n * `size` on. `network` and
 * `transport` are `networkSum` and `transportSum`. Numbers are summed as they lie in memory: see checksum.ts.
 */
export function putSegment(
  h: usize,
  p: usize,
  headers: i32,
  n: i32,
  size: i32,
  length: i32,
  isLast: bool,
  network: u64,
  transport: u64,
): void {
  copyWords(h, p, headers);
  const ip = headerLength(p);
  putSegmentNetwork(h, headers + length, identification(p) + <u32>n, network);
  const t = h + <usize>ip;
  const behind = <u64>bswap<u16>(<u16>(headers - ip + length));
  const before = transport + behind + sum(p + <usize>(headers + n * size), length, 0);
  if (protocol(p) === PROTOCOL_TCP) {
    const q = p + <usize>ip;
    const sequence = bswap<u32>(getU32(q + TCP_SEQUENCE) + <u32>(n * size));
    let flags = <u32>load<u16>(q + TCP_OFFSET);
    if (!isLast) flags &= ~((FIN | PSH) << 8);
    if (n > 0) flags &= ~(CWR << 8);
    store<u32>(t + TCP_SEQUENCE, sequence);
    store<u16>(t + TCP_OFFSET, <u16>flags);
    const made = ~fold(before + <u64>sequence + <u64>flags);
    // A lone segment is not cut by Linux: its checksum is completed (skb_checksum_help).
    store<u16>(t + TCP_CHECKSUM, n === 0 && isLast ? never0(made) : <u16>made);
  } else {
    store<u16>(t + UDP_LENGTH_FIELD, <u16>behind);
    store<u16>(t + UDP_CHECKSUM, never0(~fold(before + behind)));
  }
}

/** Copies `length` bytes, a multiple of 4: headers are so short that a call of memory.copy would cost more. */
function copyWords(to: usize, from: usize, length: i32): void {
  let i: usize = 0;
  if (ASC_FEATURE_SIMD) {
    for (const end = <usize>(length & ~15); i < end; i += 16) v128.store(to + i, v128.load(from + i));
  }
  for (const end = <usize>(length & ~7); i < end; i += 8) store<u64>(to + i, load<u64>(from + i));
  if (i < <usize>length) store<u32>(to + i, load<u32>(from + i));
}
