/**
 * Text addresses and prefixes. Bits are bigints with a width, so that 128-bit overlays need no second kind.
 */
import ipaddr from 'ipaddr.js';

export interface Address {
  /** 32 for IPv4. */
  readonly width: number;
  readonly bits: bigint;
}

export interface Prefix extends Address {
  readonly length: number;
}

/**
 * Reads an IPv4 address in four decimal parts; undefined if it is not one. (ipaddr.js itself takes 010.0.0.1
 * for 8.0.0.1.)
 */
export function parseAddress(text: string): Address | undefined {
  if (!ipaddr.IPv4.isValidFourPartDecimal(text)) return undefined;
  return ipv4(text.split('.').reduce((bits, part) => bits * 256 + Number(part), 0));
}

/** Reads ADDRESS/LENGTH; undefined if it is not of that form. Host bits are kept: see `network`. */
export function parsePrefix(text: string): Prefix | undefined {
  const [, head, tail] = /^([^/]+)\/(0|[1-9]\d?)$/.exec(text) ?? [];
  const address = head === undefined ? undefined : parseAddress(head);
  const length = Number(tail);
  return address && length <= address.width ? { ...address, length } : undefined;
}

/** The IPv4 address of a u32 number. */
export function ipv4(number: number): Address {
  return { width: 32, bits: BigInt(number >>> 0) };
}

export function formatAddress(address: Address): string {
  const bits = Number(address.bits);
  return `${bits >>> 24}.${(bits >>> 16) & 255}.${(bits >>> 8) & 255}.${bits & 255}`;
}

export function formatPrefix(prefix: Prefix): string {
  return `${formatAddress(prefix)}/${prefix.length}`;
}

/** A number with its low `count` bits set. */
export function lowBits(count: number): bigint {
  return (1n << BigInt(count)) - 1n;
}

/** The mask of an IPv4 prefix, as a signed 32-bit number. */
export function netmask(length: number): number {
  return length === 0 ? 0 : -1 << (32 - length);
}

/** The prefix of `length` bits that holds `address`, its host bits cleared. */
export function network(address: Address, length: number): Prefix {
  const host = lowBits(address.width - length);
  return { width: address.width, bits: address.bits & ~host, length };
}

export function contains(prefix: Prefix, address: Address): boolean {
  return prefix.width === address.width && network(address, prefix.length).bits === network(prefix, prefix.length).bits;
}

export function overlaps(a: Prefix, b: Prefix): boolean {
  return a.length <= b.length ? contains(a, b) : contains(b, a);
}
