/**
 * Devices that we make, or take over from an earlier daemon of ours. They are known by their kind and their
 * alias.
 */
import { InlayError } from '../../errors.ts';
import {
  IFF_UP,
  type Link,
  type LinkInfo,
  link,
  type ReceivedLink,
  RTM_DELLINK,
  RTM_NEWLINK,
} from '../../linux/netlink/link.ts';
import { NetlinkError, NLM_F_CREATE, NLM_F_EXCL, request } from '../../linux/netlink/message.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { findLink, linksOfKind } from '../../linux/netlink/rtnetlink.ts';
import { isOurAlias, makerOf } from '../alias.ts';
import { ofOtherDaemon } from '../daemons.ts';
import type { LinkThing } from '../state.ts';
import type { Context, Kind } from './kind.ts';
import { linkArguments, tunCommand } from './link-commands.ts';

/** Kinds of devices that outlive a daemon. */
export const LASTING_KINDS = ['gre', 'vxlan'];

export const linkKind: Kind<LinkThing> = {
  ensure(wanted, context) {
    const { netlink, links } = context;
    const { device, info } = wanted;
    const renamed = renameBack(wanted, context);
    const existing = findLink(netlink, device);
    if (existing && !isOurs(existing, wanted, context)) throw existsAlready(device);
    if (info.kind === 'tun') {
      if (!existing) throw new InlayError('ERR_FAILED', `device ${device} has gone`);
      return renamed;
    }
    const note: LinkThing = { kind: 'link', device, info: { kind: info.kind } };
    const wasNoted = context.isNoted(note);
    context.note(note);
    if (existing && isSame(existing, wanted)) {
      links.set(device, existing.index);
      return renamed;
    }
    if (existing) deleteLink(netlink, existing.index);
    try {
      make(wanted, netlink);
    } catch (error) {
      if (!wasNoted) context.forget(note);
      throw error;
    }
    const made = findLink(netlink, device);
    if (!made) throw new InlayError('ERR_FAILED', `device ${device} has gone`);
    links.set(device, made.index);
    return existing ? `device ${device} has other settings` : `device ${device} is missing`;
  },

  undo(thing, context) {
    const { netlink, links } = context;
    const existing = findLink(netlink, thing.device);
    if (!existing || !isOurs(existing, thing, context)) return false;
    deleteLink(netlink, existing.index);
    links.delete(thing.device);
    return true;
  },

  commands: (wanted) => [wanted.info.kind === 'tun' ? tunCommand(wanted) : `ip link add ${linkArguments(wanted)}`],
  describe: ({ device }) => `device ${device}`,
};

export function existsAlready(device: string): InlayError {
  return new InlayError('ERR_FAILED', `device ${device} exists already: another daemon or program uses it`, {
    hint: `choose another name with --device, or look who has it: ip -d link show ${device}`,
  });
}

function deleteLink(netlink: Netlink, index: number): void {
  netlink.do(request(RTM_DELLINK, 0, `link ${index}`, link, { index }));
}

/** Whether an earlier daemon made this device, whatever its data plane. The alias says so. */
export function isLeftOver({ alias, info }: ReceivedLink): boolean {
  return isOurAlias(alias) && LASTING_KINDS.includes(info?.kind ?? '');
}

/**
 * Whether the device is ours. A daemon that was killed before it set the alias has noted the device in the
 * journal. A TUN device is ours only if this process has opened it.
 */
function isOurs(existing: ReceivedLink, wanted: LinkThing, context: Context): boolean {
  if (context.links.get(wanted.device) === existing.index) return true;
  if (wanted.info.kind === 'tun') return false;
  if (existing.alias === undefined) return context.isNoted(wanted) && isSame(existing, wanted);
  return isLeftOver(existing);
}

/** Whether the device has every setting that it is to have. */
function isSame(existing: ReceivedLink, { info, address }: LinkThing): boolean {
  if (existing.info?.kind !== info.kind) return false;
  if (address && existing.address?.join() !== address.join()) return false;
  const found = (existing.info.data ?? {}) as Record<string, unknown>;
  return Object.entries(info.data ?? {}).every(
    ([name, value]) => value === undefined || String(found[name] ?? 0) === String(value),
  );
}

/** Gives our device its name back; returns what it was called. */
function renameBack({ device, info }: LinkThing, { netlink, links }: Context): string | undefined {
  const known = links.get(device);
  const renamed = known === undefined ? ofAlias(netlink, device, info.kind) : findLink(netlink, known);
  if (!renamed?.name || renamed.name === device || findLink(netlink, device)) return undefined;
  const { index, name, flags } = renamed;
  const set = (changes: Link) => netlink.do(request(RTM_NEWLINK, 0, `link ${name}`, link, { index, ...changes }));
  // Older kernels rename no device that is up.
  set({ flags: 0, change: IFF_UP });
  try {
    set({ name: device });
  } catch (error) {
    set({ flags: flags & IFF_UP, change: IFF_UP });
    throw error;
  }
  return `device ${device} is called ${name}`;
}

/** The device of this kind whose alias has this name. */
function ofAlias(netlink: Netlink, device: string, kind: string): ReceivedLink | undefined {
  if (!LASTING_KINDS.includes(kind)) return undefined;
  const isIt = ({ alias }: ReceivedLink) => makerOf(alias)?.device === device;
  return linksOfKind(netlink, kind, (found) => found.some(isIt)).find(isIt);
}

/** The kernel has one device for each key (or VXLAN network identifier) and address. */
function takenBy(cause: NetlinkError, kind: string, netlink: Netlink): InlayError {
  const [maker] = linksOfKind(netlink, kind).flatMap(({ alias }) => makerOf(alias) ?? []);
  if (maker) return ofOtherDaemon(`a ${kind} device with the same key`, maker, cause);
  return new InlayError(
    'ERR_FAILED',
    `a ${kind} device of another program has the same key and address: ${cause.message}`,
    { hint: `look for it: ip -d link show type ${kind}; or choose another --key on all VMs`, cause },
  );
}

function make({ device, info, address }: LinkThing, netlink: Netlink): void {
  const body = { name: device, address, info };
  try {
    netlink.do(request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, `link ${device}`, link, body));
  } catch (cause) {
    throw cause instanceof NetlinkError ? refusal(cause, info, netlink) : cause;
  }
}

function refusal(cause: NetlinkError, info: LinkInfo, netlink: Netlink): Error {
  const { kind, data } = info;
  const other = kind === 'gre' ? 'vxlan' : 'gre';
  // The name was free a moment ago, so EEXIST means another device with the same key and address.
  if (cause.code === 'EEXIST') return takenBy(cause, kind, netlink);
  if (cause.code === 'EOPNOTSUPP') {
    return new InlayError('ERR_FAILED', `this kernel has no ${kind} devices: ${cause.message}`, {
      hint: `modprobe ${kind === 'gre' ? 'ip_gre' : kind}; or on all VMs --encapsulation ${other}, or --dataplane wasm`,
      cause,
    });
  }
  if (cause.code === 'EINVAL' && data && 'encapDport' in data) {
    return new InlayError(
      'ERR_FAILED',
      `this kernel cannot send GRE in UDP (CONFIG_NET_FOU_IP_TUNNELS): ${cause.message}`,
      { hint: 'on all VMs --encapsulation gre or vxlan, or --dataplane wasm', cause },
    );
  }
  return cause;
}
