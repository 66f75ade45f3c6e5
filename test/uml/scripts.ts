/** Packet scripts for a GRE tunnel, and what Linux makes of them: see scripts.py, which makes them. */
import { readFileSync } from 'node:fs';
import { type CoreConfig, type Direction, overhead, type PacketCore } from '../../src/core/index.ts';
import { config, hex, messages } from '../core.ts';

/** The tunnel device, in the words of ip-tunnel(8). */
interface Device {
  key?: number;
  icsum?: true;
  ocsum?: true;
  iseq?: true;
  oseq?: true;
  ttl?: number | 'inherit';
  tos?: number | 'inherit';
  pmtudisc?: false;
}

interface Packet {
  name: string;
  input: string;
  output: string[];
  answer?: string[];
}

interface Script {
  name: string;
  item: string;
  direction: Direction;
  device: Device;
  packets: Packet[];
}

export const scripts = JSON.parse(readFileSync(new URL('scripts.json', import.meta.url), 'utf8')) as Script[];

/** What a core is told where `ip` is told this. Checksums are verified in any case (icsum), and sequence numbers are for both directions. */
export function configOf({ key, ttl = 64, tos = 0, ocsum, iseq, oseq, pmtudisc }: Device): CoreConfig {
  const dscp = tos === 'inherit' ? 'uniform' : tos >> 2;
  const greSequence = (iseq ?? oseq) !== undefined;
  const options = {
    key,
    ttl,
    dscp,
    greChecksum: ocsum === true,
    greSequence,
    pathMtuDiscovery: pmtudisc !== false,
  } as const;
  return { ...config, ...options, mtu: 1500 - overhead('gre', options) };
}

/** What a core makes of a packet, and what it answers. */
export function pass(core: PacketCore, direction: Direction, { input }: Packet): [made: string[], answers: string[]] {
  core.put(0, Buffer.from(input, 'hex'));
  if (direction === 'outbound') core.encapsulate(0, 1, 0);
  else core.decapsulate(0, 1, 0);
  return [
    messages(core).map(({ bytes }) => hex(bytes)),
    core.messages.replies().map((reply) => hex(core.messages.bytes(reply))),
  ];
}
