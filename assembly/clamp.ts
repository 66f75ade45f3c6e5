/** TCP's maximum segment size (RFC 9293 §3.7.1), lowered to what the tunnel carries: for hosts whose path MTU discovery is broken. */
import { getU16, putU16 } from './bytes';
import { update } from './checksum';
import { headerLength, IPV4_LENGTH, isFragment, protocol, totalLength } from './ipv4';
import { optionLength } from './options';
import { PROTOCOL_TCP, SYN, TCP_CHECKSUM, TCP_FLAGS, TCP_MIN_LENGTH, tcpLength } from './transport';

// From the specification.
const MAXIMUM_SEGMENT_SIZE: u32 = 2;
const MAXIMUM_SEGMENT_SIZE_LENGTH: usize = 4;

/** Whether the packet at `p` is one that opens a connection, and all of its TCP header is there. */
export function canClamp(p: usize): bool {
  if (protocol(p) !== PROTOCOL_TCP || isFragment(p)) return false;
  const length = totalLength(p) - headerLength(p);
  const t = p + <usize>headerLength(p);
  if (length < TCP_MIN_LENGTH || (<u32>load<u8>(t + TCP_FLAGS) & SYN) === 0) return false;
  const header = tcpLength(t);
  return header >= TCP_MIN_LENGTH && header <= length;
}

/** Clamps such a packet to packets of `limit` bytes; `open` if its checksum is still to be made. */
export function clampMss(p: usize, limit: i32, open: bool): void {
  const t = p + <usize>headerLength(p);
  const most = <u32>(limit - IPV4_LENGTH - TCP_MIN_LENGTH);
  const end = t + <usize>tcpLength(t);
  let option = t + TCP_MIN_LENGTH;
  for (let bytes = optionLength(option, end); bytes !== 0; bytes = optionLength(option, end)) {
    const kind = <u32>load<u8>(option);
    if (kind === MAXIMUM_SEGMENT_SIZE && bytes === MAXIMUM_SEGMENT_SIZE_LENGTH) lower(t, option + 2, most, open);
    option += bytes;
  }
}

function lower(t: usize, field: usize, most: u32, open: bool): void {
  const before = getU16(field);
  if (before <= most) return;
  putU16(field, most);
  if (open) return;
  // The sum is over 16-bit words of the segment; a field at an odd place lies across two, which swaps its bytes (RFC 1071 §2 (B)).
  const odd = ((field - t) & 1) !== 0;
  const old = <u16>(odd ? before : bswap<u16>(<u16>before));
  const now = <u16>(odd ? most : bswap<u16>(<u16>most));
  store<u16>(t + TCP_CHECKSUM, update(load<u16>(t + TCP_CHECKSUM), old, now));
}
