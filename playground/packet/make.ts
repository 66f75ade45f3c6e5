/** Makes packets for the examples, and the outer headers that the kernel's UDP socket makes. */
import { sum } from '../../src/core/typescript/checksum.ts';

export interface Ipv4Parts {
  source: number;
  destination: number;
  protocol: number;
  tos?: number;
  ttl?: number;
  /** Whether routers may not fragment it. */
  dontFragment?: boolean;
}

/** An IPv4 packet (RFC 791) around `payload`. Addresses are u32 numbers. */
export function ipv4Packet(parts: Ipv4Parts, payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const packet = new Uint8Array(20 + payload.length);
  const view = new DataView(packet.buffer);
  packet.set([0x45, parts.tos ?? 0]);
  view.setUint16(2, packet.length);
  view.setUint16(6, parts.dontFragment ? 0x4000 : 0);
  packet.set([parts.ttl ?? 64, parts.protocol], 8);
  view.setUint32(12, parts.source);
  view.setUint32(16, parts.destination);
  view.setUint16(10, ~sum(view, 0, 20) & 0xffff);
  packet.set(payload, 20);
  return packet;
}

/** A UDP datagram in its IPv4 packet (RFC 768), with its checksum. */
export function udpDatagram(
  parts: Omit<Ipv4Parts, 'protocol'>,
  ports: [number, number],
  data: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const datagram = new Uint8Array(8 + data.length);
  const view = new DataView(datagram.buffer);
  view.setUint16(0, ports[0]);
  view.setUint16(2, ports[1]);
  view.setUint16(4, datagram.length);
  datagram.set(data, 8);
  const packet = ipv4Packet({ ...parts, protocol: 17 }, datagram);
  closeChecksum(packet, 6);
  return packet;
}

/** The first packet of a TCP connection (RFC 9293), which announces this maximum segment size. */
export function tcpSyn(
  parts: Omit<Ipv4Parts, 'protocol'>,
  ports: [number, number],
  segment: number,
): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(24);
  const view = new DataView(header.buffer);
  view.setUint16(0, ports[0]);
  view.setUint16(2, ports[1]);
  view.setUint32(4, 1);
  view.setUint16(12, 0x6002); // 24 bytes, SYN
  view.setUint16(14, 64_240);
  view.setUint32(20, 0x0204_0000 + segment);
  const packet = ipv4Packet({ ...parts, protocol: 6 }, header);
  closeChecksum(packet, 16);
  return packet;
}

/** An echo request (RFC 792) with so many bytes of data. */
export function ping(parts: Omit<Ipv4Parts, 'protocol'>, size: number): Uint8Array<ArrayBuffer> {
  const message = Uint8Array.from({ length: 8 + size }, (_, i) => i & 255);
  message.set([8, 0, 0, 0, 0, 1, 0, 1]);
  new DataView(message.buffer).setUint16(2, ~sum(new DataView(message.buffer), 0, message.length) & 0xffff);
  return ipv4Packet({ ...parts, protocol: 1 }, message);
}

/** Puts the checksum at `offset` behind the IPv4 header right, over that and the pseudo header. */
function closeChecksum(packet: Uint8Array<ArrayBuffer>, offset: number): void {
  const view = new DataView(packet.buffer);
  const total = sum(view, 12, packet.length - 12) + (packet[9] as number) + packet.length - 20;
  const check = ~((total & 0xffff) + (total >>> 16)) & 0xffff;
  view.setUint16(20 + offset, check === 0 ? 0xffff : check);
}
