/**
 * A super-packet becomes wire packets, segment for segment what Linux would send (inet_gso_segment, tcp_gso_segment, __udp_gso_segment): the headers are
 * made anew for each, the payload stays where it is.
 */
import { getU32, putU16, putU32 } from './bytes';
import { fold, sum } from './checksum';
import { headerLength, identification, protocol, putIdentification, putTotalLength } from './ipv4';
import {
  CWR,
  FIN,
  never0,
  PROTOCOL_TCP,
  PSH,
  pseudoSum,
  TCP_CHECKSUM,
  TCP_FLAGS,
  TCP_SEQUENCE,
  UDP_CHECKSUM,
  UDP_LENGTH_FIELD,
} from './transport';

/** Puts the inner headers, `headers` bytes, of segment `n` of the super-packet at `p` to `h`; its payload is `length` bytes from byte n * `size` on. */
export function putSegment(h: usize, p: usize, headers: i32, n: i32, size: i32, length: i32, isLast: bool): void {
  copyWords(h, p, headers);
  const ip = headerLength(p);
  putIdentification(h, identification(p) + <u32>n);
  putTotalLength(h, headers + length);
  const payload = p + <usize>(headers + n * size);
  const transport = headers - ip + length;
  const t = h + <usize>ip;
  if (protocol(p) === PROTOCOL_TCP) {
    putU32(t + TCP_SEQUENCE, getU32(t + TCP_SEQUENCE) + <u32>(n * size));
    let flags = <u32>load<u8>(t + TCP_FLAGS);
    if (!isLast) flags &= ~(FIN | PSH);
    if (n > 0) flags &= ~CWR;
    store<u8>(t + TCP_FLAGS, <u8>flags);
    store<u16>(t + TCP_CHECKSUM, 0);
    const made = ~checksum(h, t, headers - ip, payload, length, transport);
    // A lone segment is not cut by Linux: its checksum is completed (skb_checksum_help).
    store<u16>(t + TCP_CHECKSUM, n === 0 && isLast ? never0(made) : <u16>made);
  } else {
    putU16(t + UDP_LENGTH_FIELD, <u32>transport);
    store<u16>(t + UDP_CHECKSUM, 0);
    store<u16>(t + UDP_CHECKSUM, never0(~checksum(h, t, headers - ip, payload, length, transport)));
  }
}

/** The folded sum over pseudo header, transport header and payload. */
function checksum(h: usize, t: usize, header: i32, payload: usize, length: i32, transport: i32): u32 {
  return fold(sum(payload, length, sum(t, header, pseudoSum(h, transport))));
}

/** Copies `length` bytes, a multiple of 4: headers are so short that a call of memory.copy would cost more. */
function copyWords(to: usize, from: usize, length: i32): void {
  let i: usize = 0;
  for (const end = <usize>(length & ~7); i < end; i += 8) store<u64>(to + i, load<u64>(from + i));
  if (i < <usize>length) store<u32>(to + i, load<u32>(from + i));
}
