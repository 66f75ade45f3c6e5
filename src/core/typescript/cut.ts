/**
 * Cutting: a super-packet of TCP or UDP into segments, as Linux does it (inet_gso_segment, tcp_gso_segment,
 * __udp_gso_segment). Each segment's headers are made in a header block; the payload stays where it is.
 */
import { copy, getU32, loadU8, type Memory, putU16, putU32, storeU8 } from './bytes.ts';
import { fold, sum } from './checksum.ts';
import * as ipv4 from './ipv4.ts';
import * as transport from './transport.ts';

/**
 * Puts the headers of segment `n` at `h`: those of the super-packet at `p`, `headers` bytes, made to fit `length` bytes of
 * payload that begin `offset` bytes into the super-packet's.
 */
export function putSegment(
  memory: Memory,
  h: number,
  p: number,
  headers: number,
  n: number,
  offset: number,
  length: number,
): void {
  copy(memory, h, p, headers);
  ipv4.putIdentification(memory, h, ipv4.identification(memory, p) + n);
  ipv4.putTotalLength(memory, h, headers + length);

  const t = h + ipv4.headerLength(memory, h);
  const isTcp = ipv4.protocol(memory, h) === transport.PROTOCOL_TCP;
  const isLast = headers + offset + length === ipv4.totalLength(memory, p);
  if (isTcp) putTcp(memory, t, offset, isLast);
  else putU16(memory, t + transport.UDP_LENGTH_FIELD, transport.UDP_LENGTH + length);

  const field = t + transport.checksumOffset(memory, h);
  putU16(memory, field, 0);
  // Headers are of even length, so header and payload are summed apart.
  const data = sum(memory, t, h + headers - t) + sum(memory, p + headers + offset, length);
  const checksum = ~fold(transport.pseudoSum(memory, h) + data) & 0xffff;
  // Linux does not cut a lone segment, it completes its checksum (skb_checksum_help), which never comes out as 0.
  const isLone = isLast && offset === 0;
  putU16(memory, field, isTcp && !isLone ? checksum : transport.never0(checksum));
}

/** Sequence number and flags of the TCP segment whose payload begins `offset` bytes into the super-packet's. */
function putTcp(memory: Memory, t: number, offset: number, isLast: boolean): void {
  putU32(memory, t + transport.TCP_SEQUENCE, getU32(memory, t + transport.TCP_SEQUENCE) + offset);
  let flags = loadU8(memory, t + transport.TCP_FLAGS);
  // What is sent now ends only with the last segment, and the window is said to be reduced only once (RFC 3168 §6.1.2).
  if (!isLast) flags &= ~(transport.FIN | transport.PSH);
  if (offset !== 0) flags &= ~transport.CWR;
  storeU8(memory, t + transport.TCP_FLAGS, flags);
}
