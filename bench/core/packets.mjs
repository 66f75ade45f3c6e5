/** The packets that the core is measured with. Addresses are u32 numbers. */

export const HERE = 0xc0a81020; // the VM 192.168.16.32
export const THERE = 0xc0a81021;
export const MAPPINGS = [{ overlay: 0x0a000000, overlayLength: 8, underlay: 0xc0a80000, underlayLength: 16 }];
const CONTAINER_HERE = 0x0a10205b; // 10.16.32.91
const CONTAINER_THERE = 0x0a102107; // 10.16.33.7

/** Bytes of the IPv4 header, and of a TCP header with timestamps, as Linux sends it. */
const IPV4_LENGTH = 20;
const TCP_LENGTH = 32;
/** Bytes of a plain GRE header, and its protocol type for IPv4. */
const GRE_LENGTH = 4;
const GRE_IPV4 = 0x0800;
export const TCP_HEADERS = IPV4_LENGTH + TCP_LENGTH;
const DONT_FRAGMENT = 0x4000;

/** A UDP packet of `size` bytes in all, without UDP checksum. */
export function udpPacket(size, source = CONTAINER_HERE, destination = CONTAINER_THERE) {
  const packet = Buffer.alloc(size, 0x5a);
  putIpv4(packet, 17, source, destination);
  packet.writeUInt16BE(40000, IPV4_LENGTH);
  packet.writeUInt16BE(9000, IPV4_LENGTH + 2);
  packet.writeUInt16BE(size - IPV4_LENGTH, IPV4_LENGTH + 4);
  packet.writeUInt16BE(0, IPV4_LENGTH + 6);
  return packet;
}

/** Part `part` of a TCP stream that comes in super-packets of `payload` bytes, with the virtio header that has it cut into segments of `size` bytes. */
export function tcpSuperPacket(part, payload, size) {
  const virtio = Buffer.from([1, 1, TCP_HEADERS, 0, size & 255, size >> 8, IPV4_LENGTH, 0, 16, 0]);
  const packet = Buffer.alloc(TCP_HEADERS + payload, 0x5a);
  putIpv4(packet, 6, CONTAINER_HERE, CONTAINER_THERE);
  packet.writeUInt16BE(40000, IPV4_LENGTH);
  packet.writeUInt16BE(5201, IPV4_LENGTH + 2);
  packet.writeUInt32BE(1 + part * payload, IPV4_LENGTH + 4);
  packet.writeUInt32BE(1, IPV4_LENGTH + 8);
  packet.writeUInt16BE(((TCP_LENGTH / 4) << 12) | 0x10, IPV4_LENGTH + 12); // ACK
  packet.writeUInt16BE(501, IPV4_LENGTH + 14);
  packet.writeUInt32BE(0, IPV4_LENGTH + 16); // The core computes the checksum of each segment anew.
  packet.set([1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 5], IPV4_LENGTH + 20);
  return Buffer.concat([virtio, packet]);
}

/** The packet in plain GRE (RFC 2784), from one VM to another. */
export function withOuterHeader(inner, source, destination) {
  const outer = Buffer.alloc(IPV4_LENGTH + GRE_LENGTH + inner.length);
  outer.writeUInt16BE(GRE_IPV4, IPV4_LENGTH + 2);
  outer.set(inner, IPV4_LENGTH + GRE_LENGTH);
  putIpv4(outer, 47, source, destination);
  return outer;
}

/** A plain GRE packet, from its outer IPv4 header on, with the GRE checksum (RFC 2784 §2.1) added. */
export function withGreChecksum(packet) {
  const outer = packet.subarray(0, IPV4_LENGTH);
  const gre = Buffer.concat([
    packet.subarray(IPV4_LENGTH, IPV4_LENGTH + 4),
    Buffer.alloc(4),
    packet.subarray(IPV4_LENGTH + 4),
  ]);
  gre[0] |= 0x80;
  gre.writeUInt16BE(internetChecksum(gre), 4);
  const whole = Buffer.concat([outer, gre]);
  whole.writeUInt16BE(whole.length, 2);
  putHeaderChecksum(whole);
  return whole;
}

function putIpv4(packet, protocol, source, destination) {
  packet.writeUInt16BE(0x4500, 0);
  packet.writeUInt16BE(packet.length, 2);
  packet.writeUInt32BE(DONT_FRAGMENT, 4);
  packet.writeUInt16BE((64 << 8) | protocol, 8);
  packet.writeUInt32BE(source, 12);
  packet.writeUInt32BE(destination, 16);
  putHeaderChecksum(packet);
}

function putHeaderChecksum(packet) {
  packet.writeUInt16BE(0, 10);
  packet.writeUInt16BE(internetChecksum(packet.subarray(0, IPV4_LENGTH)), 10);
}

function internetChecksum(bytes) {
  let sum = 0;
  for (let i = 0; i < bytes.length; i++) sum += i % 2 ? bytes[i] : bytes[i] << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}
