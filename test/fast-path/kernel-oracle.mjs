/** What the kernel does with packets around the core: it forwards them, and makes UDP and IPv4 of GRE-in-UDP. */
import { put16, put32, sum, u16 } from '../fuzz/bytes.mjs';

const [IPV4_LENGTH, UDP_LENGTH, UDP] = [20, 8, 17];
export const GRE_UDP_PORT = 4754;
/** RFC 8086 §3.2.1: what a source port may be; a platform is known to take one of them. */
const [FIRST_PORT, LAST_PORT, TAKEN_PORT] = [49152, 65535, 65330];

/** The packet with its time to live taken down by one, and its checksum, as ip_decrease_ttl() does it in the order of this machine's bytes. */
export function forwarded(packet) {
  const copy = packet.slice();
  copy[8]--;
  const check = (copy[10] | (copy[11] << 8)) + 1;
  const next = (check + (check >= 0xffff ? 1 : 0)) & 0xffff;
  copy[10] = next;
  copy[11] = next >> 8;
  return copy;
}

/** The packet from which that is made: what is right stays right, and what is wrong wrong. */
export function unforwarded(packet) {
  const copy = packet.slice();
  copy[8]++;
  const check = copy[10] | (copy[11] << 8);
  const last = check === 0 ? 0xfffe : check - 1;
  copy[10] = last;
  copy[11] = last >> 8;
  return copy;
}

/**
 * The GRE-in-UDP datagram that a packet of the underlay is, as a UDP socket for `local` would get it: with the VM that sent
 * it. Undefined if there is none. `isWrong` says that it has a checksum that is wrong, so that the socket does not get it.
 */
export function datagramIn(packet, local) {
  const header = (packet[0] & 15) * 4;
  const total = u16(packet, 2);
  if (packet[0] >> 4 !== 4 || header < IPV4_LENGTH || total < header + UDP_LENGTH || total > packet.length) return;
  if (sum(packet, 0, header) !== 0xffff || packet[9] !== UDP || (u16(packet, 6) & 0x3fff) !== 0) return;
  const view = new DataView(packet.buffer, packet.byteOffset);
  if (view.getUint32(16) !== local || u16(packet, header + 2) !== GRE_UDP_PORT) return;
  const length = u16(packet, header + 4);
  if (length < UDP_LENGTH || length > total - header) return;
  const isSummed = u16(packet, header + 6) !== 0;
  return {
    isWrong: isSummed && sum(packet, header, header + length, sum(packet, 12, 20, UDP + length)) !== 0xffff,
    payload: packet.subarray(header + UDP_LENGTH, header + length),
    vm: view.getUint32(12),
    tos: packet[1],
    /** As the fast path takes them: nothing but what has to be there. */
    isPlain: header === IPV4_LENGTH && !isSummed && length === total - header,
  };
}

/** The packet that has `gre` in a datagram of GRE-in-UDP, without a UDP checksum. */
export function udpAround(gre, { source, destination, tos = 0, ttl = 64, port = FIRST_PORT }) {
  const packet = new Uint8Array(IPV4_LENGTH + UDP_LENGTH + gre.length);
  packet.set([0x45, tos, packet.length >> 8, packet.length, 0, 0, 0x40, 0, ttl, UDP]);
  put32(packet, 12, source);
  put32(packet, 16, destination);
  put16(packet, 10, ~sum(packet, 0, IPV4_LENGTH));
  put16(packet, IPV4_LENGTH, port);
  put16(packet, IPV4_LENGTH + 2, GRE_UDP_PORT);
  put16(packet, IPV4_LENGTH + 4, UDP_LENGTH + gre.length);
  packet.set(gre, IPV4_LENGTH + UDP_LENGTH);
  return packet;
}

/** What is wrong with the IPv4 and UDP headers before `gre`, or null. */
export function udpDifference(packet, gre, fields) {
  const port = u16(packet, IPV4_LENGTH);
  if (port < FIRST_PORT || port > LAST_PORT || port === TAKEN_PORT) return `source port ${port}`;
  return bytesDifference(packet, udpAround(gre, { ...fields, port }));
}

/** Where two packets differ, in words; null if they do not. */
export function bytesDifference(got, expected) {
  if (Buffer.compare(got, expected) === 0) return null;
  const at = expected.findIndex((byte, i) => byte !== got[i]);
  const hex = (bytes) => Buffer.from(bytes.subarray(0, 100)).toString('hex');
  return `byte ${at === -1 ? expected.length : at}: got ${got.length} bytes ${hex(got)}, expected ${expected.length} bytes ${hex(expected)}`;
}
