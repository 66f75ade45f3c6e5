/** Settings, addresses and state of a device, each changed only where it differs. */
import { existsSync } from 'node:fs';
import { InlayError } from '../../errors.ts';
import { address, RTM_DELADDR, RTM_NEWADDR } from '../../linux/netlink/address.ts';
import { addressBytes } from '../../linux/netlink/ipv4.ts';
import {
  IFF_NOARP,
  IFF_UP,
  IN6_ADDR_GEN_MODE_NONE,
  type Link,
  link,
  type ReceivedLink,
  RTM_NEWLINK,
} from '../../linux/netlink/link.ts';
import { NLM_F_CREATE, NLM_F_REPLACE, request } from '../../linux/netlink/message.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { AF_INET, addresses, findLink } from '../../linux/netlink/rtnetlink.ts';
import { type Address, parseAddress } from '../../mesh/address.ts';
import { quote } from '../../shell.ts';
import type { AddressesThing, SettingsThing, UpThing } from '../state.ts';
import { type Context, indexOf, type Kind } from './kind.ts';

/** Missing where the kernel has no IPv6, as with ipv6.disable=1. */
const IPV6 = '/proc/net/if_inet6';

export const settingsKind: Kind<SettingsThing> = {
  ensure({ device, alias, mtu, txQueueLength, gsoMaxSegs, gsoMaxSize, arp }, context) {
    const { netlink } = context;
    const found = ownLink(context, device);
    // The device gets no IPv6 link-local address. This comes before the MTU: below 1280 bytes (RFC 8200 §5)
    // the kernel takes IPv6 from the device, and with it this setting.
    const mode = found.afSpec?.inet6?.addrGenMode;
    if (existsSync(IPV6) && mode !== undefined && mode !== IN6_ADDR_GEN_MODE_NONE)
      setLink(netlink, found.index, { afSpec: { inet6: { addrGenMode: IN6_ADDR_GEN_MODE_NONE } } });
    const wanted = { alias, mtu, txQueueLength, gsoMaxSegs, gsoMaxSize };
    const wrong = Object.entries(wanted).filter(
      ([name, value]) => value !== undefined && found[name as keyof typeof wanted] !== value,
    );
    const isDeaf = arp && (found.flags & IFF_NOARP) !== 0;
    if (wrong.length === 0 && !isDeaf) return undefined;
    const flags = arp ? { flags: 0, change: IFF_NOARP } : {};
    setLink(netlink, found.index, { ...Object.fromEntries(wrong), ...flags });
    const words = wrong.map(([name, value]) => `${name} ${found[name as keyof typeof wanted] ?? 'none'}, not ${value}`);
    return `device ${device} has ${[...words, ...(isDeaf ? ['arp off'] : [])].join(' and ')}`;
  },

  commands({ device, alias, mtu, txQueueLength, gsoMaxSegs, gsoMaxSize, arp }) {
    const gso = gsoMaxSegs === undefined ? '' : ` gso_max_segs ${gsoMaxSegs} gso_max_size ${gsoMaxSize}`;
    const set = `alias ${quote(alias)} mtu ${mtu} txqueuelen ${txQueueLength}${gso}${arp ? ' arp on' : ''}`;
    return [`ip link set dev ${device} addrgenmode none`, `ip link set dev ${device} ${set}`];
  },
  describe: ({ device }) => `settings of ${device}`,
};

export const addressesKind: Kind<AddressesThing> = {
  ensure({ device, addresses: wanted }, context) {
    const { netlink } = context;
    const index = indexOf(context, device);
    const found = addresses(netlink, index);
    const texts = found.map(({ local, prefixLength }) => (prefixLength === 32 ? (local?.join('.') ?? '') : ''));
    const missing = wanted.filter((text) => !texts.includes(text));
    for (const text of missing) {
      const bytes = addressBytes(parseAddress(text) as Address);
      const body = { family: AF_INET, prefixLength: 32, index, local: bytes, address: bytes };
      netlink.do(request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, `address ${text}`, address, body));
    }
    // Other addresses are left of an earlier daemon with another overlay.
    const superfluous = found.filter((_, i) => !wanted.includes(texts[i] ?? ''));
    for (const each of superfluous) netlink.do(request(RTM_DELADDR, 0, `address of ${device}`, address, each));
    const words = [
      ...missing.map((text) => `address ${text} is missing`),
      ...superfluous.map(({ local }) => `address ${local?.join('.')} is not ours`),
    ];
    return words.length === 0 ? undefined : `${device}: ${words.join(', ')}`;
  },

  commands: ({ device, addresses }) => addresses.map((text) => `ip address add ${text}/32 dev ${device}`),
  describe: ({ device }) => `addresses of ${device}`,
};

export const upKind: Kind<UpThing> = {
  ensure(thing, context) {
    const { device, others } = thing;
    const found = others ? findLink(context.netlink, device) : ownLink(context, device);
    if (!found || found.flags & IFF_UP) return undefined;
    const wasNoted = context.isNoted(thing);
    if (others) context.note(thing);
    try {
      setLink(context.netlink, found.index, { flags: IFF_UP, change: IFF_UP });
    } catch (error) {
      if (!wasNoted) context.forget(thing);
      throw error;
    }
    return `device ${device} is down`;
  },

  undo({ device }, { netlink }) {
    const found = findLink(netlink, device);
    if (!found || !(found.flags & IFF_UP)) return false;
    setLink(netlink, found.index, { flags: 0, change: IFF_UP });
    return true;
  },

  commands: ({ device, others }) => [`ip link set dev ${device} up${others ? ' 2>/dev/null || true' : ''}`],
  describe: ({ device }) => `state up of ${device}`,
};

function ownLink(context: Context, device: string): ReceivedLink {
  const found = findLink(context.netlink, indexOf(context, device));
  if (!found) throw new InlayError('ERR_FAILED', `device ${device} has gone`);
  return found;
}

function setLink(netlink: Netlink, index: number, changes: Link): void {
  netlink.do(request(RTM_NEWLINK, 0, `link ${index}`, link, { ...changes, index }));
}
