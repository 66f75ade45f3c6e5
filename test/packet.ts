/** Packets for tests. */

/** An ICMP-less IPv4 packet of 28 + `size` bytes, its payload counting up, with a right header checksum. */
export function ipv4Packet(source: number, destination: number, size: number): Uint8Array {
  const packet = new Uint8Array(28 + size);
  const view = new DataView(packet.buffer);
  view.setUint16(0, 0x4500);
  view.setUint16(2, packet.length);
  view.setUint16(8, 0x4011); // TTL 64, UDP
  view.setUint32(12, source);
  view.setUint32(16, destination);
  for (let i = 20; i < packet.length; i++) packet[i] = i;
  let sum = 0;
  for (let i = 0; i < 20; i += 2) sum += view.getUint16(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  view.setUint16(10, ~sum & 0xffff);
  return packet;
}
