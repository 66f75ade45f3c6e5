/** Packet scripts for a GRE tunnel, and what Linux makes of them: see scripts.py, which makes them. */
import { readFileSync } from 'node:fs';
import type { CoreConfig, Direction, PacketCore } from '../../src/core/index.ts';
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

/** What a core is told where `ip` is told this; undefined if the core has no such option. */
export function configOf({ key, ttl = 64, ...others }: Device): CoreConfig | undefined {
  if (ttl === 'inherit' || Object.keys(others).length > 0) return undefined;
  return { ...config, key, ttl };
}

/** What a core makes of a packet. */
export function pass(core: PacketCore, direction: Direction, { input }: Packet): string[] {
  core.put(0, Buffer.from(input, 'hex'));
  if (direction === 'outbound') core.encapsulate(0, 1, 0);
  else core.decapsulate(0, 1, 0);
  return messages(core).map(({ bytes }) => hex(bytes));
}
