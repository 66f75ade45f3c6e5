/** Makes a device, or takes over the one that an earlier daemon of ours made. */
import { InlayError } from '../errors.ts';
import { type LinkInfo, link, type ReceivedLink, RTM_DELLINK, RTM_NEWLINK } from '../linux/netlink/link.ts';
import { NetlinkError, NLM_F_CREATE, NLM_F_EXCL, request } from '../linux/netlink/message.ts';
import type { Netlink } from '../linux/netlink/netlink.ts';
import { findLink } from '../linux/netlink/rtnetlink.ts';
import type { ApplyOptions } from './apply.ts';
import type { Journal } from './journal.ts';
import { ALIAS, type Step } from './steps.ts';

/** Of devices that we make. */
const KINDS = ['gre', 'vxlan'];

/** Throws ERR_FAILED if somebody else has a device of that name, or the kernel has no such devices. */
export function makeLink(step: Extract<Step, { kind: 'link' }>, options: ApplyOptions): void {
  const { netlink, journal, onChange } = options;
  const { device, info, address } = step;
  const existing = findLink(netlink, device);
  if (existing && !isOurs(existing, step, journal)) throw existsAlready(device);
  if (existing) options.onAdopt?.();
  journal.add({ kind: 'link', device });
  if (existing && isSame(existing, step)) return;
  if (existing) {
    onChange({ device }, 'the device was made with other settings: it is made anew');
    deleteLink(netlink, device);
  }
  try {
    netlink.do(
      request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, `link ${device}`, link, { name: device, address, info }),
    );
  } catch (cause) {
    throw cause instanceof NetlinkError ? refusal(cause, info) : cause;
  }
}

export function existsAlready(device: string): InlayError {
  return new InlayError('ERR_FAILED', `device ${device} exists already: another daemon or program uses it`, {
    hint: `choose another name with --device, or look who has it: ip -d link show ${device}`,
  });
}

/** False if it had gone already. */
export function deleteLink(netlink: Netlink, device: string): boolean {
  if (!findLink(netlink, device)) return false;
  netlink.do(request(RTM_DELLINK, 0, `link ${device}`, link, { name: device }));
  return true;
}

/** By its kind and alias; a daemon that was killed in time has not set that. The journal may have gone with its directory. */
function isOurs(existing: ReceivedLink, step: Extract<Step, { kind: 'link' }>, journal: Journal): boolean {
  const { alias, info } = existing;
  if (alias === undefined) return journal.has({ kind: 'link', device: step.device }) && isSame(existing, step);
  return alias.startsWith(ALIAS) && KINDS.includes(info?.kind ?? '');
}

/** Whether the device has every setting that it is to have. */
function isSame(existing: ReceivedLink, { info, address }: Extract<Step, { kind: 'link' }>): boolean {
  if (existing.info?.kind !== info.kind) return false;
  if (address && existing.address?.join() !== address.join()) return false;
  const found = (existing.info.data ?? {}) as Record<string, unknown>;
  return Object.entries(info.data ?? {}).every(
    ([name, value]) => value === undefined || String(found[name] ?? 0) === String(value),
  );
}

function refusal(cause: NetlinkError, { kind, data }: LinkInfo): Error {
  const other = kind === 'gre' ? 'vxlan' : 'gre';
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
      {
        hint: 'on all VMs --encapsulation gre or vxlan, or --dataplane wasm',
        cause,
      },
    );
  }
  return cause;
}
