/** What this machine's underlay looks like: its own address in it, and the MTU towards other VMs. */
import { type Address, contains, formatAddress, formatPrefix, parseAddress } from './address.ts';
import { InlayError } from './errors.ts';
import { ip, ipJson } from './iproute.ts';
import type { Mapping } from './mapping.ts';

interface LinkJson {
  ifname: string;
  mtu: number;
  addr_info: { family: string; local: string }[];
}

export interface Underlay {
  /** This VM's underlay address. */
  local: Address;
  /** Bytes that an outer packet may have. */
  mtu: number;
}

/** Finds this VM's address inside the underlay prefixes: `wanted`, or the only one there is. Throws ERR_CONFIG with what was found. */
export async function findUnderlay(mappings: readonly Mapping[], wanted: Address | undefined): Promise<Underlay> {
  const links = await ipJson<LinkJson>(['address', 'show']);
  const prefixes = [...new Set(mappings.map((m) => formatPrefix(m.underlay)))].join(', ');
  const all = links.flatMap((link) =>
    link.addr_info.flatMap((info) => {
      const address = info.family === 'inet' ? parseAddress(info.local) : undefined;
      return address ? [{ address, text: `${info.local} on ${link.ifname}` }] : [];
    }),
  );
  const list = (found: typeof all) => found.map((a) => a.text).join(', ') || 'none at all';
  const inside = all.filter((a) => mappings.some((m) => contains(m.underlay, a.address)));

  if (wanted) {
    const text = formatAddress(wanted);
    if (!mappings.some((m) => contains(m.underlay, wanted))) {
      throw new InlayError('ERR_CONFIG', `local address ${text} is outside the underlay ${prefixes}`);
    }
    if (!all.some((a) => a.address.bits === wanted.bits)) {
      throw new InlayError('ERR_CONFIG', `local address ${text} is not on this machine: it has ${list(all)}`);
    }
    return { local: wanted, mtu: await routeMtu(mappings, wanted, links) };
  }
  const [only, another] = inside;
  if (!only) {
    throw new InlayError(
      'ERR_CONFIG',
      `this machine has no address inside the underlay ${prefixes}: it has ${list(all)}`,
      {
        hint: 'correct the underlay prefix, or give this VM an address in it',
      },
    );
  }
  if (another) {
    throw new InlayError('ERR_CONFIG', `several addresses are inside the underlay ${prefixes}: ${list(inside)}`, {
      hint: `choose one with --local ${formatAddress(only.address)}`,
    });
  }
  return { local: only.address, mtu: await routeMtu(mappings, only.address, links) };
}

/** The MTU of the route to other VMs. The address next to ours stands for all of them. */
async function routeMtu(mappings: readonly Mapping[], local: Address, links: readonly LinkJson[]): Promise<number> {
  const own = links.find((link) => link.addr_info.some((info) => info.local === formatAddress(local)))?.mtu ?? 0;
  if (!mappings.some((m) => contains(m.underlay, local) && m.vmBits > 0)) return own; // There is no other VM.
  const neighbour = { width: local.width, bits: local.bits ^ 1n };
  // There may be no route to that address: the others may have one.
  return mtuTowards(neighbour, local, links).catch(() => own);
}

/** The MTU of the route from our address to another: its own metric, else that of the link it leaves by. */
export async function mtuTowards(to: Address, from: Address, known?: readonly LinkJson[]): Promise<number> {
  const text = await ip(['-oneline', 'route', 'get', formatAddress(to), 'from', formatAddress(from)]);
  const device = /\bdev (\S+)/.exec(text)?.[1];
  const links = known ?? (await ipJson<LinkJson>(['address', 'show']));
  const link = links.find(({ ifname }) => ifname === device)?.mtu;
  const metric = /\bmtu (?:lock )?(\d+)/.exec(text)?.[1];
  return Math.min(Number(link ?? metric), Number(metric ?? link));
}
