/**
 * Cutting: a super-packet of TCP or UDP into segments, as Linux does it (inet_gso_segment, tcp_gso_segment,
 * __udp_gso_segment). Each segment's headers are made in a header block; the payload stays where it is.
 */
import { getI32, type Memory, putI32, putU16 } from './bytes.ts';
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
  // Both headers are whole words.
  for (let i = 0; i < headers; i += 4) putI32(memory, h + i, getI32(memory, p + i));
  ipv4.resize(memory, h, headers + length, ipv4.identification(memory, p) + n);

  const header = ipv4.headerLength(memory, h);
  const isTcp = ipv4.protocol(memory, h) === transport.PROTOCOL_TCP;
  const isLast = headers + offset + length === ipv4.totalLength(memory, p);
  if (isTcp) {
    divideTcp(memory, h + header, offset, isLast);
  } else {
    transport.putUdpLength(memory, h + header, transport.UDP_LENGTH + length);
  }

  const field = transport.checksumOf(memory, h);
  putU16(memory, field, 0);
  // Headers are of even length, so header and payload are summed apart.
  const data = sum(memory, h + header, headers - header) + sum(memory, p + headers + offset, length);
  const checksum = ~fold(transport.pseudoSum(memory, h) + data) & 0xffff;
  // Linux does not cut a lone segment, it completes its checksum (skb_checksum_help), which never comes out as 0.
  const isLone = isLast && offset === 0;
  putU16(memory, field, checksum === 0 && (!isTcp || isLone) ? 0xffff : checksum);
}

/** Sequence number and flags of the TCP segment whose payload begins `offset` bytes into the super-packet's. */
function divideTcp(memory: Memory, t: number, offset: number, isLast: boolean): void {
  transport.putSequence(memory, t, transport.sequence(memory, t) + offset);
  let flags = transport.tcpFlags(memory, t);
  // What is sent now ends only with the last segment, and the window is said to be reduced only once (RFC 3168 §6.1.2).
  if (!isLast) flags &= ~(transport.FIN | transport.PSH);
  if (offset !== 0) flags &= ~transport.CWR;
  transport.putTcpFlags(memory, t, flags);
}
