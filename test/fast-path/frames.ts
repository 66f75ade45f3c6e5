/** What frames on the edge of what the fast path takes are made of. */
import type { CoreConfig } from '../../src/core/index.ts';
import * as wire from '../packet.ts';
import { lastIndex, mappingOf, overlayOf } from './configs.ts';
import { GRE_UDP_PORT } from './kernel-oracle.mjs';
import { LINKS, macOf, UPLINK } from './namespace.mjs';

interface Known {
  heard?: number;
  outbound?: number;
  inbound?: number;
  limit?: number;
}

export interface Edge {
  name: string;
  direction: 'outbound' | 'inbound';
  frame: Uint8Array;
  /** True: has to be taken. False: has to pass. Undefined: as the twin says. */
  must?: boolean | undefined;
  record?: Known;
  ifindex?: number;
  gsoSize?: number;
  /** The fast path is off. */
  isOff?: boolean;
}

export const [ICMP, TCP, UDP, GRE, SCTP] = [1, 6, 17, 47, 132] as const;
const FROM = [2, 0, 0, 0, 9, 9];

export const framed = (packet: ArrayLike<number>, to: readonly number[], type = 0x0800) =>
  Uint8Array.from([...to, ...FROM, type >> 8, type & 255, ...Array.from(packet)]);

export const toHost = (packet: ArrayLike<number>, link = LINKS[0] as number) => framed(packet, macOf(link));
export const toUplink = (packet: ArrayLike<number>) => framed(packet, macOf(UPLINK));

export const view = (packet: Uint8Array) => new DataView(packet.buffer, packet.byteOffset);

/** A copy with other bytes, its IPv4 header checksum right unless told otherwise. */
export function changed(packet: Uint8Array, bytes: Record<number, number>, fix = true): Uint8Array {
  const copy = packet.slice();
  for (const [at, value] of Object.entries(bytes)) copy[Number(at)] = value;
  if (!fix) return copy;
  view(copy).setUint16(10, 0);
  view(copy).setUint16(10, ~wire.sum(copy.subarray(0, Math.min(((copy[0] as number) & 15) * 4, copy.length))) & 0xffff);
  return copy;
}

export const payload = (length: number) => ({ payload: wire.payloadOf(length) });

/** The addresses that edges are about: containers here and there, and the VM there. */
export function placesOf(config: CoreConfig) {
  const which = mappingOf(config, config.local);
  const there = config.local + 1;
  return {
    which,
    there,
    here: (index: number) => overlayOf(config, config.local, index, which),
    remote: (index: number) => overlayOf(config, there, index, which),
    last: lastIndex(config, which),
  };
}

/** A plain packet out. */
export const out = (config: CoreConfig, parts: wire.Parts = {}) => {
  const { here, remote } = placesOf(config);
  return wire.packetOf({ source: here(2), destination: remote(2), protocol: UDP, ...parts });
};

/** A plain packet in. */
export const back = (config: CoreConfig, parts: wire.Parts = {}) => {
  const { here, remote } = placesOf(config);
  return wire.packetOf({ source: remote(2), destination: here(2), protocol: UDP, ...parts });
};

/** As the other VM sends it, in the configuration's encapsulation; with another GRE header, if one is given. */
export function underlay(
  config: CoreConfig,
  inner: Uint8Array,
  parts: Partial<wire.Outer> = {},
  header: readonly number[] = wire.greHeader({ key: config.key }, inner),
): Uint8Array {
  const { there } = placesOf(config);
  const { local, encapsulation } = config;
  const around = { source: there, destination: local, ...parts };
  const gre = [...header, ...inner];
  if (encapsulation !== 'gre-udp') return wire.ipv4Around(around, gre);
  const udp = [0xc0, 0x01, ...word(GRE_UDP_PORT), ...word(8 + gre.length), 0, 0];
  return wire.ipv4Around({ protocol: UDP, ...around }, [...udp, ...gre]);
}

const word = (number: number): number[] => [number >> 8, number & 255];

/** A packet with four bytes of options, of which none says anything. */
export function withOptions(packet: Uint8Array): Uint8Array {
  const copy = Uint8Array.from([...packet.subarray(0, 20), 1, 1, 1, 1, ...packet.subarray(20)]);
  return changed(copy, { 0: 0x46, 2: copy.length >> 8, 3: copy.length & 255 });
}

/** The packet with an identification that brings the header checksum out as `target`. */
export function summing(packet: Uint8Array, target: number): Uint8Array {
  const zero = changed(packet, { 4: 0, 5: 0 });
  const id = wire.sum(Uint8Array.of(...word(view(zero).getUint16(10)), ...word(~target & 0xffff)));
  return changed(zero, { 4: id >> 8, 5: id & 255 });
}

/** Checksums of which the sum has two forms, or the taking down of the time to live carries. */
export const SUMS = [0x0000, 0xffff, 0xfdff, 0xfeff, 0xfefe, 0xff00, 0x00ff];

/** More fragments, and each bit of the offset. */
export const FRAGMENT_BITS: number[] = Array.from({ length: 14 }, (_, bit) => 1 << bit);
