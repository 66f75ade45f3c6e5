/** Devices in the words of ip-link(8) and ip-tuntap(8). */
import { GRE_CSUM, GRE_KEY, type LinkInfo } from '../../linux/netlink/link.ts';
import { formatAddress, ipv4 } from '../../mesh/address.ts';
import type { LinkThing } from '../state.ts';

export function tunCommand({ device, info }: LinkThing): string {
  const { vnetHdr, multiQueue } = (info as Extract<LinkInfo, { kind: 'tun' }>).data ?? {};
  return `ip tuntap add dev ${device} mode tun${vnetHdr ? ' vnet_hdr' : ''}${multiQueue ? ' multi_queue' : ''}`;
}

export function linkArguments({ device, info, address }: LinkThing): string {
  const mac = address ? ` address ${formatMac(address)}` : '';
  return `name ${device}${mac} type ${info.kind} ${infoArguments(info).join(' ')}`;
}

function infoArguments(info: LinkInfo): string[] {
  if (info.kind === 'gre') {
    const data = (info as Extract<LinkInfo, { kind: 'gre' }>).data ?? {};
    const flags = data.oflags ?? 0;
    return [
      ...['local', ipText(data.local), 'ttl', data.ttl ? String(data.ttl) : 'inherit'],
      ...tosArguments(data.tos),
      ...(flags & GRE_KEY ? ['key', String(data.okey)] : []),
      ...(flags & GRE_CSUM ? ['csum'] : []),
      ...(data.pmtudisc ? ['pmtudisc'] : ['nopmtudisc', 'ignore-df']),
      ...(data.encapDport ? ['encap', 'fou', 'encap-sport', 'auto', 'encap-dport', String(data.encapDport)] : []),
    ];
  }
  const data = (info as Extract<LinkInfo, { kind: 'vxlan' }>).data ?? {};
  return [
    ...['id', String(data.id), 'local', ipText(data.local), 'dstport', String(data.port), 'nolearning'],
    ...['ttl', data.ttlInherit ? 'inherit' : String(data.ttl)],
    ...tosArguments(data.tos),
    ...(data.df ? ['df', 'set'] : []),
  ];
}

function tosArguments(tos = 0): string[] {
  return tos === 0 ? [] : ['tos', `0x${tos.toString(16)}`];
}

function ipText(bytes: Uint8Array | undefined): string {
  return bytes ? bytes.join('.') : formatAddress(ipv4(0));
}

export function formatMac(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}
