/** Which flow a packet belongs to, and what docs/core.md makes of that: its outer port, its bucket. None of it with the core's own code. */

const view = (packet: Uint8Array) => new DataView(packet.buffer, packet.byteOffset, packet.length);
const ipLength = (packet: Uint8Array) => ((packet[0] as number) & 15) * 4;
const isFragment = (packet: Uint8Array) => (view(packet).getUint16(6) & 0x3fff) !== 0;

export function hasFlow(packet: Uint8Array): boolean {
  return (
    (packet[9] === 6 || packet[9] === 17) && !isFragment(packet) && view(packet).getUint16(2) >= ipLength(packet) + 4
  );
}

/** Protocol, addresses and the first four bytes behind the IPv4 header. */
export function flowOf(packet: Uint8Array): Uint8Array {
  const ip = ipLength(packet);
  return Uint8Array.from([packet[9] as number, ...packet.subarray(12, 20), ...packet.subarray(ip, ip + 4)]);
}

/** The hash of docs/core.md (Messages), in whole numbers. */
function hash(packet: Uint8Array): bigint {
  const [K, word] = [0x9e3779b1n, 2n ** 32n];
  const [ip, total] = [ipLength(packet), view(packet).getUint16(2)];
  const has = [6, 17, 33, 132, 136].includes(packet[9] as number) && !isFragment(packet) && total >= ip + 4;
  const [source, destination, ports] = [12, 16, ip].map((at) =>
    at < 20 || has ? BigInt(view(packet).getUint32(at)) : 0n,
  );
  const addresses = (source as bigint) * K + (destination as bigint);
  const h = ((addresses * K + (ports as bigint)) * K + BigInt(packet[9] as number)) % word;
  return ((h ^ (h >> 15n)) * K) % word;
}

export const portOf = (packet: Uint8Array, ports: number) => Number(((hash(packet) >> 16n) * BigInt(ports)) >> 16n);
export const bucket = (packet: Uint8Array) => Number(hash(packet) >> 26n);
