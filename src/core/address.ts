/** Addresses as the core takes them: u32 numbers, which a host may write as text. */

/** A mapping of an overlay prefix to an underlay prefix; addresses are u32 numbers, lengths are in bits. */
export interface Mapping {
  overlay: number;
  overlayLength: number;
  underlay: number;
  underlayLength: number;
}

const IPV4 = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/;

/** The number of an IPv4 address in four decimal parts; throws a RangeError if it is not one. */
export function ipv4(text: string): number {
  const parts = IPV4.exec(text)?.slice(1) ?? [];
  // A part that begins with 0 is octal to some, decimal to others (RFC 6943 §3.1.1).
  if (parts.length !== 4 || parts.some((part) => Number(part) > 255 || String(Number(part)) !== part)) {
    throw new RangeError(`address "${text}": expected one such as 10.16.32.91`);
  }
  return parts.reduce((number, part) => number * 256 + Number(part), 0);
}

/** The text of an IPv4 address. */
export function ipv4Text(address: number): string {
  return [address >>> 24, (address >>> 16) & 255, (address >>> 8) & 255, address & 255].join('.');
}

/** The mapping of two prefixes, such as 10.0.0.0/8 and 192.168.0.0/16; throws a RangeError if they are none. */
export function mapping(overlay: string, underlay: string): Mapping {
  const [over, under] = [prefix(overlay), prefix(underlay)];
  return {
    overlay: over.address,
    overlayLength: over.length,
    underlay: under.address,
    underlayLength: under.length,
  };
}

/** The two prefixes of a mapping, as text. */
export function mappingText({ overlay, overlayLength, underlay, underlayLength }: Mapping): string {
  return `${ipv4Text(overlay)}/${overlayLength} to ${ipv4Text(underlay)}/${underlayLength}`;
}

function prefix(text: string): { address: number; length: number } {
  const [, address = '', length = ''] = /^([^/]*)\/(\d{1,2})$/.exec(text) ?? [];
  if (Number(length) > 32 || String(Number(length)) !== length) {
    throw new RangeError(`prefix "${text}": expected one such as 10.0.0.0/8`);
  }
  return { address: ipv4(address), length: Number(length) };
}

/** A u32 with its bytes in the other order: between a number and what lies in memory in network order. */
export function networkOrder(word: number): number {
  return ((word >>> 24) | ((word >>> 8) & 0xff00) | ((word << 8) & 0xff0000) | (word << 24)) >>> 0;
}
