/** What kernels said, and what it means (golden.json; capture.mjs captured it). */
import { readFileSync } from 'node:fs';
import { address, RTM_NEWADDR } from '../../src/linux/netlink/address.ts';
import type { Codec } from '../../src/linux/netlink/codec.ts';
import { link, RTM_NEWLINK } from '../../src/linux/netlink/link.ts';
import { neighbour, neighbourTable, RTM_NEWNEIGH } from '../../src/linux/netlink/neighbour.ts';
import { netconf, RTM_NEWNETCONF } from '../../src/linux/netlink/netconf.ts';
import { RTM_NEWROUTE, route } from '../../src/linux/netlink/route.ts';
import { fromJson } from './json.ts';

export interface Golden {
  name: string;
  /** The kernel's version, and the command that it was the answer to, or that shows the same. */
  source: string;
  /** The datagram. */
  hex: string;
  messages: { type: number; flags: number; value: object }[];
}

export const goldens = fromJson(readFileSync(new URL('./golden.json', import.meta.url), 'utf8')) as Golden[];

const RTM_NEWNEIGHTBL = 64;
const kinds = new Map<number, { kind: string; codec: Codec<object> }>([
  [RTM_NEWLINK, { kind: 'link', codec: link }],
  [RTM_NEWADDR, { kind: 'address', codec: address }],
  [RTM_NEWROUTE, { kind: 'route', codec: route }],
  [RTM_NEWNEIGH, { kind: 'neighbour', codec: neighbour }],
  [RTM_NEWNETCONF, { kind: 'netconf', codec: netconf }],
  [RTM_NEWNEIGHTBL, { kind: 'neighbourTable', codec: neighbourTable }],
]);

/** Of RTM_NEW..., RTM_DEL..., RTM_GET... or RTM_SET...; undefined for acknowledgements. */
export function kindOf(type: number): { kind: string; codec: Codec<object> } | undefined {
  return kinds.get(type & ~3);
}
