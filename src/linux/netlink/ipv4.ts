/** IPv4 addresses as the kernel's messages have them. */
import { type Address, ipv4 } from '../../mesh/address.ts';

/** Four bytes, from a u32 number. */
export function ipv4Bytes(number: number): Uint8Array {
  return Uint8Array.of(number >>> 24, number >>> 16, number >>> 8, number);
}

export function addressBytes(address: Address): Uint8Array {
  return ipv4Bytes(Number(address.bits));
}

/** The u32 number of four bytes; undefined if there are not four. */
export function ipv4Number(bytes: Uint8Array | undefined): number | undefined {
  if (bytes?.length !== 4) return undefined;
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
}

export function addressOf(bytes: Uint8Array | undefined): Address | undefined {
  const number = ipv4Number(bytes);
  return number === undefined ? undefined : ipv4(number);
}
