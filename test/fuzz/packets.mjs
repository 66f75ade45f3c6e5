/** Packets in place, put right again after a change, or left open, or given options. None of it is the core's own code. */
import { put16, sum, u16 } from './bytes.mjs';
import { putOptions } from './options.mjs';

export const [ICMP, TCP, UDP, GRE] = [1, 6, 17, 47];

/** Where the field for the transport checksum is. */
const CHECKSUM = { [TCP]: 16, [UDP]: 6, [ICMP]: 2 };

const pseudoSum = (bytes, at, length) => sum(bytes, at + 12, at + 20, bytes[at + 9] + length);

/** Where the header ends, as far as that makes sense. */
export function headerEnd(bytes, at, end) {
  return Math.min(at + Math.max((bytes[at] & 15) * 4, 20), end);
}

/** The IPv4 header checksum put right. */
export function putHeaderRight(bytes, at, end) {
  if (end - at < 20) return;
  put16(bytes, at + 10, 0);
  put16(bytes, at + 10, ~sum(bytes, at, headerEnd(bytes, at, end)));
}

/** Where the transport checksum of the packet is, if it has one; else 0. */
function checksumField(bytes, at, end) {
  if (end - at < 20) return 0;
  const field = headerEnd(bytes, at, end) + (CHECKSUM[bytes[at + 9]] ?? end);
  return field + 2 <= end ? field : 0;
}

/** All checksums put right; lengths are taken as they are. */
export function putRight(bytes, at, limit) {
  putHeaderRight(bytes, at, limit);
  const end = Math.min(at + u16(bytes, at + 2), limit);
  const field = checksumField(bytes, at, end);
  if (field === 0) return;
  const transport = headerEnd(bytes, at, end);
  put16(bytes, field, 0);
  const pseudo = bytes[at + 9] === ICMP ? 0 : pseudoSum(bytes, at, end - transport);
  const checksum = ~sum(bytes, transport, end, pseudo) & 0xffff;
  put16(bytes, field, checksum === 0 && bytes[at + 9] === UDP ? 0xffff : checksum);
}

/** The transport checksum left to the device: in its field, the sum of the pseudo header (CHECKSUM_PARTIAL). */
export function leaveOpen(bytes, at, limit) {
  const end = Math.min(at + u16(bytes, at + 2), limit);
  const field = checksumField(bytes, at, end);
  if (field !== 0) put16(bytes, field, pseudoSum(bytes, at, end - headerEnd(bytes, at, end)));
}

/** The last two bytes such that the transport checksum, or the identification such that the header's, comes out as 0, which has two forms. */
export function putZero(bytes, at, end, random) {
  if (random.chance(50)) {
    put16(bytes, at + 4, 0);
    putHeaderRight(bytes, at, end);
    put16(bytes, at + 4, u16(bytes, at + 10));
    putHeaderRight(bytes, at, end);
    if (random.chance(30)) put16(bytes, at + 10, 0xffff);
    return;
  }
  const field = checksumField(bytes, at, end);
  const last = end - 2 - ((end - headerEnd(bytes, at, end)) & 1);
  if (field === 0 || last < field + 2) return;
  put16(bytes, last, 0);
  putRight(bytes, at, end);
  put16(bytes, last, u16(bytes, field));
  putRight(bytes, at, end);
  if (random.chance(30)) put16(bytes, field, 0xffff ^ u16(bytes, field));
}

/** Puts IP options into a packet, behind its header. Returns its end. */
export function insertOptions(bytes, at, end, random) {
  const header = (bytes[at] & 15) * 4;
  const length = 4 * random.between(1, 3);
  if (end - at < 20 || header < 20 || header + length > 60 || at + header > end) return end;
  bytes.copyWithin(at + header + length, at + header, end);
  putOptions(bytes, at + header, at + header + length, random);
  bytes[at] += length / 4;
  put16(bytes, at + 2, u16(bytes, at + 2) + length);
  return end + length;
}
