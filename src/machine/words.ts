/** Steps as commands that an operator can type. */

import { GRE_CSUM, GRE_KEY, type LinkInfo } from '../linux/netlink/link.ts';
import { formatAddress, ipv4 } from '../mesh/address.ts';
import { type OverlayRoute, ROUTE_PROTOCOL, type Step } from './steps.ts';

/** The command of iproute2 or procps that does the same. */
export function command(step: Step): string {
  switch (step.kind) {
    case 'link':
      return step.info.kind === 'tun' ? tunWords(step) : `ip link add ${linkWords(step)}`;
    case 'fou':
      return `ip fou add port ${step.port} ipproto 47`;
    case 'link-settings': {
      const { device, alias, mtu, txQueueLength, gsoMaxSegs, gsoMaxSize, arp } = step;
      const gso = gsoMaxSegs === undefined ? '' : ` gso_max_segs ${gsoMaxSegs} gso_max_size ${gsoMaxSize}`;
      const set = `alias '${alias}' mtu ${mtu} txqueuelen ${txQueueLength}${gso}${arp ? ' arp on' : ''}`;
      return `ip link set dev ${device} addrgenmode none\nip link set dev ${device} ${set}`;
    }
    case 'addresses':
      return step.addresses.map((address) => `ip address add ${address}/32 dev ${step.device}`).join('\n');
    case 'neighbour-parameters': {
      const values = Object.entries(step.parameters).map(([name, value]) => `${name}=${value}`);
      return values.map((value) => sysctl(`net/ipv4/neigh/${step.device}/${value}`)).join('\n');
    }
    case 'link-up':
      return `ip link set dev ${step.device} up`;
    case 'route':
      return `ip route add ${routeWords(step.route)}`;
    case 'sysctl':
      return sysctl(`net/ipv4/conf/${step.device}/${step.name}=${step.value}`, step.ifAny);
  }
}

/** As `ip route` takes it. */
export function routeWords({ to, device, via, source }: OverlayRoute): string {
  const words = [
    ...(device ? [to] : ['unreachable', to]),
    ...(via ? ['via', via] : []),
    ...(device ? ['dev', device] : []),
    ...(via ? ['onlink'] : []),
    ...(source ? ['src', source] : []),
  ];
  return [...words, 'proto', ROUTE_PROTOCOL].join(' ');
}

/** With slashes: a device's name may have dots. */
function sysctl(assignment: string, ifAny = false): string {
  return `sysctl ${ifAny ? '-e ' : ''}-qw ${assignment}`;
}

function tunWords({ device, info }: Extract<Step, { kind: 'link' }>): string {
  const { vnetHdr, multiQueue } = (info as Extract<LinkInfo, { kind: 'tun' }>).data ?? {};
  return `ip tuntap add dev ${device} mode tun${vnetHdr ? ' vnet_hdr' : ''}${multiQueue ? ' multi_queue' : ''}`;
}

function linkWords({ device, info, address }: Extract<Step, { kind: 'link' }>): string {
  const mac = address ? ` address ${formatMac(address)}` : '';
  return `name ${device}${mac} type ${info.kind} ${infoWords(info).join(' ')}`;
}

function infoWords(info: LinkInfo): string[] {
  if (info.kind === 'gre') {
    const data = (info as Extract<LinkInfo, { kind: 'gre' }>).data ?? {};
    const flags = data.oflags ?? 0;
    return [
      ...['local', ipText(data.local), 'ttl', data.ttl ? String(data.ttl) : 'inherit'],
      ...tosWords(data.tos),
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
    ...tosWords(data.tos),
    ...(data.df ? ['df', 'set'] : []),
  ];
}

function tosWords(tos = 0): string[] {
  return tos === 0 ? [] : ['tos', `0x${tos.toString(16)}`];
}

function ipText(bytes: Uint8Array | undefined): string {
  return bytes ? bytes.join('.') : formatAddress(ipv4(0));
}

export function formatMac(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}
