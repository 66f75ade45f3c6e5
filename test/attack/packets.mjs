/**
 * Frames for attacks, made with nothing of the core's own: every field may be a lie, but lengths and
 * checksums are right.
 */

export const [ICMP, TCP, UDP] = [1, 6, 17];
const GRE = 47;
const [GRE_UDP_PORT, VXLAN_PORT] = [4754, 4789];
/** The VXLAN network identifier that meshes without a key have. */
const VNI = 1;
const MORE_FRAGMENTS = 0x2000;
export const DONT_FRAGMENT = 0x4000;
const [ARPHRD_ETHER, ETH_P_IP, ETH_P_ARP, ETH_P_IPV6, ETH_P_8021Q] = [1, 0x0800, 0x0806, 0x86dd, 0x8100];

export const address = (text) => Buffer.from(text.split('.').map(Number));
const mac = (text) => Buffer.from(text.split(':').map((byte) => Number.parseInt(byte, 16)));
const words = (...values) => Buffer.from(values.flatMap((value) => [(value >> 8) & 255, value & 255]));

/** The checksum of RFC 1071. */
function checksum(...parts) {
  const bytes = Buffer.concat(parts);
  let sum = 0;
  for (let i = 0; i < bytes.length; i++) sum += i & 1 ? bytes[i] : bytes[i] << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

/**
 * An Ethernet frame; `tag` puts an 802.1Q header with VLAN 0 before the payload: what the kernel takes as the
 * device's own.
 */
export function ethernet({ from, to, type = ETH_P_IP, tag = false }, payload) {
  return Buffer.concat([mac(to), mac(from), ...(tag ? [words(ETH_P_8021Q, 0)] : []), words(type), payload]);
}

/** An IPv4 packet (RFC 791). `options` are whole words. */
export function ipv4({ from, to, protocol, ttl = 64, id = 1, fragment = 0, options = [], length }, payload) {
  const header = Buffer.alloc(20 + options.length);
  header.set([0x40 | (header.length / 4), 0]);
  header.writeUInt16BE(length ?? header.length + payload.length, 2);
  header.writeUInt16BE(id, 4);
  header.writeUInt16BE(fragment, 6);
  header.set([ttl, protocol], 8);
  header.set([...address(from), ...address(to)], 12);
  header.set(options, 20);
  header.writeUInt16BE(checksum(header), 10);
  return Buffer.concat([header, payload]);
}

/** UDP in IPv4; without a checksum, which RFC 768 allows. */
export function udp({ sourcePort = 1024, port, ...ip }, payload) {
  return ipv4(
    { ...ip, protocol: UDP },
    Buffer.concat([words(sourcePort, port, ip.udpLength ?? 8 + payload.length, 0), payload]),
  );
}

export const [SYN, ACK] = [2, 16];

/** TCP in IPv4 (RFC 9293). */
export function tcp({ sourcePort = 1024, port, flags = SYN, ...ip }, payload = Buffer.alloc(0)) {
  const segment = Buffer.concat([words(sourcePort, port, 0, 1, 0, 1, 0x5000 | flags, 500, 0, 0), payload]);
  segment.writeUInt16BE(checksum(address(ip.from), address(ip.to), words(TCP, segment.length), segment), 16);
  return ipv4({ ...ip, protocol: TCP }, segment);
}

/** ICMP in IPv4 (RFC 792); `rest` are the four bytes before what is quoted. */
export function icmp({ type, code = 0, rest = [0, 0, 0, 0], ...ip }, quoted) {
  const message = Buffer.concat([Buffer.from([type, code, 0, 0, ...rest]), quoted]);
  message.writeUInt16BE(checksum(message), 2);
  return ipv4({ ...ip, protocol: ICMP }, message);
}

/** "Fragmentation needed", with the next hop's MTU (RFC 1191 §4). */
export const fragmentationNeeded = (ip, mtu, quoted) =>
  icmp({ type: 3, code: 4, rest: [0, 0, mtu >> 8, mtu & 255], ...ip }, quoted);
export const hostUnreachable = (ip, quoted) => icmp({ type: 3, code: 1, ...ip }, quoted);
export const redirect = (ip, gateway, quoted) => icmp({ type: 5, code: 1, rest: address(gateway), ...ip }, quoted);

/** The MAC address that a VM has on the overlay's device where the kernel speaks VXLAN. */
const vmMac = (underlay) => ['02:00', ...[...address(underlay)].map((byte) => byte.toString(16))].join(':');

/** What a tunnel of each kind puts around an inner packet; the outer header is `ip`. */
export const TUNNELS = {
  gre: (ip, inner) => ipv4({ ...ip, protocol: GRE }, Buffer.concat([words(0, ETH_P_IP), inner])),
  'gre-udp': (ip, inner) =>
    udp({ sourcePort: 50000, ...ip, port: GRE_UDP_PORT }, Buffer.concat([words(0, ETH_P_IP), inner])),
  vxlan: (ip, inner) => udp({ sourcePort: 50000, ...ip, port: VXLAN_PORT }, vxlanPayload(ip.vm ?? ip.to, inner)),
};

/** VXLAN (RFC 7348 §5) and an Ethernet header to a VM. */
export function vxlanPayload(vm, inner) {
  return Buffer.concat([words(0x0800, 0, 0, VNI << 8), ethernet({ from: '02:00:00:00:00:01', to: vmMac(vm) }, inner)]);
}

/** The packet in fragments with so many bytes of payload each, a multiple of 8 (RFC 791 §3.2). */
export function fragments(packet, size) {
  const header = (packet[0] & 15) * 4;
  const parts = [];
  for (let at = header; at < packet.length; at += size) {
    const part = Buffer.concat([packet.subarray(0, header), packet.subarray(at, at + size)]);
    part.writeUInt16BE(part.length, 2);
    part.writeUInt16BE((at + size < packet.length ? MORE_FRAGMENTS : 0) | ((at - header) / 8), 6);
    part.writeUInt16BE(0, 10);
    part.writeUInt16BE(checksum(part.subarray(0, header)), 10);
    parts.push(part);
  }
  return parts;
}

/** ARP (RFC 826): `operation` 1 asks, 2 answers. */
export function arp({ operation = 1, from, sender, target, to = 'ff:ff:ff:ff:ff:ff' }) {
  const body = [words(ARPHRD_ETHER, ETH_P_IP, 0x0604, operation), mac(from), address(sender), mac(to), address(target)];
  return ethernet({ from, to, type: ETH_P_ARP }, Buffer.concat(body));
}

/**
 * A router advertisement (RFC 4861 §4.2) with the sender's address and a prefix, to all hosts of the link.
 */
export function routerAdvertisement(from) {
  const source = Buffer.from('fe800000000000000000000000000bad', 'hex');
  const all = Buffer.from('ff020000000000000000000000000001', 'hex');
  const prefix = Buffer.from('20010db80bad00000000000000000000', 'hex');
  const message = Buffer.concat([
    Buffer.from([134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0]),
    Buffer.from([1, 1]),
    mac(from),
    Buffer.from([3, 4, 64, 0xc0, 0, 1, 0x51, 0x80, 0, 0, 0x38, 0x40, 0, 0, 0, 0]),
    prefix,
  ]);
  const pseudo = Buffer.concat([source, all, words(0, message.length, 0, 58)]);
  message.writeUInt16BE(checksum(pseudo, message), 2);
  const header = Buffer.concat([words(0x6000, 0, message.length), Buffer.from([58, 255]), source, all]);
  return ethernet({ from, to: '33:33:00:00:00:01', type: ETH_P_IPV6 }, Buffer.concat([header, message]));
}

/**
 * `struct virtio_net_hdr` (<linux/virtio_net.h>) before a frame: a super-packet that the kernel is to cut
 * every `size` bytes.
 */
export function superPacket(frame, size) {
  const isTcp = frame[23] === TCP;
  const start = 14 + (frame[14] & 15) * 4;
  const header = Buffer.alloc(10);
  header.set([1, isTcp ? 1 : 5]);
  for (const [at, value] of [
    [2, start + (isTcp ? 20 : 8)],
    [4, size],
    [6, start],
    [8, isTcp ? 16 : 6],
  ])
    header.writeUInt16LE(value, at);
  return Buffer.concat([header, frame]);
}
