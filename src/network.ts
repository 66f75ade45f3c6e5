/** Sets up the machine's side of the overlay: addresses, routes and sysctls, each noted in the journal first. */
import { existsSync, writeFileSync } from 'node:fs';
import { type Address, contains, formatAddress, formatPrefix } from './address.ts';
import { PACKETS_PER_MESSAGE } from './core/abi.ts';
import type { Encapsulation } from './core/core.ts';
import { InlayError } from './errors.ts';
import { ip, ipJson } from './iproute.ts';
import type { Journal } from './journal.ts';
import type { Log } from './log.ts';
import type { Mapping } from './mapping.ts';

/** Our routes carry this number, so that they are recognisable as ours (rtnetlink(7): numbers above RTPROT_STATIC are free to use). */
const ROUTE_PROTOCOL = '73';

/** The kernel's fallback device of the module ip_gre: it takes part in protocol 47 wherever it exists. */
const FALLBACK_GRE = 'gre0';

/** Packets that wait for the daemon; at the kernel's 500, bursts of several TCP streams were dropped. */
const TX_QUEUE_LENGTH = 1000;

/** The kernel's own limit of a super-packet (GSO_LEGACY_MAX_SIZE, <linux/netdevice.h>). */
const MAX_SUPER_PACKET = 65536;
/** What Linux counts for headers of a TCP super-packet (MAX_TCP_HEADER, <net/tcp.h>), about. */
const LONGEST_HEADERS = 320;
/** IPv4 and TCP headers without options. */
const MIN_HEADERS = 40;
const MAX_DATAGRAM = 65507;
const MAX_GRE = 8;

/** Missing where the kernel has no IPv6, as with ipv6.disable=1. */
const IPV6 = '/proc/net/if_inet6';

export interface NetworkOptions {
  device: string;
  local: Address;
  mappings: readonly Mapping[];
  /** Of the TUN device, in bytes. */
  mtu: number;
  encapsulation: Encapsulation;
}

/** Throws ERR_FAILED if a device of that name exists. */
export function refuseExistingDevice(name: string): void {
  if (!existsSync(`/sys/class/net/${name}`)) return;
  throw new InlayError('ERR_FAILED', `device ${name} exists already: another daemon or program uses it`, {
    hint: `choose another name with --device, or look who has it: ip -d link show ${name}`,
  });
}

/** Gives the device its addresses and routes and takes it up. */
export async function setUpNetwork(options: NetworkOptions, journal: Journal, log: Log): Promise<void> {
  const { device, local, mappings, mtu, encapsulation } = options;
  // No link-local address. First of all: with an MTU below 1280 (RFC 8200 §5) the device has no IPv6 that could be told so.
  if (existsSync(IPV6)) await ip(['link', 'set', 'dev', device, 'addrgenmode', 'none']);
  const queue = String(TX_QUEUE_LENGTH);
  await ip([
    'link',
    'set',
    'dev',
    device,
    'alias',
    `inlay ${formatAddress(local)}`,
    'mtu',
    String(mtu),
    'txqueuelen',
    queue,
    'gso_max_segs',
    String(PACKETS_PER_MESSAGE),
    'gso_max_size',
    String(superPacketSize(mtu, encapsulation)),
  ]);
  for (const mapping of mappings) {
    if (contains(mapping.underlay, local)) {
      await ip([
        'address',
        'add',
        `${formatAddress(mapping.addressOf(local, 1n))}/${mapping.overlay.width}`,
        'dev',
        device,
      ]);
    }
  }
  acceptReplies(device);
  await ip(['link', 'set', 'dev', device, 'up']);
  for (const mapping of mappings) await addRoutes(mapping, options, journal);

  if (journal.sysctl(`/proc/sys/net/ipv4/conf/${device}/forwarding`, '1')) {
    log.info({ device }, 'turned IPv4 forwarding on for the device');
  }
  await quietKernelGre(journal, log);
}

/**
 * ICMP messages about packets of this VM itself come from its own overlay address, out of the device. Not in the journal: what belongs to the device goes with
 * it. Where this is not allowed, the VM's own connections are all that miss them.
 */
function acceptReplies(device: string): void {
  try {
    writeFileSync(`/proc/sys/net/ipv4/conf/${device}/accept_local`, '1');
  } catch {}
}

/**
 * What the kernel may put into one super-packet, in bytes. GRE-in-UDP: as many wire packets as one datagram has room for before the kernel cuts it up, so that
 * a super-packet is one message. Linux takes the longest headers off this size before it counts segments (tcp_gso_size_goal).
 */
function superPacketSize(mtu: number, encapsulation: Encapsulation): number {
  if (encapsulation === 'gre') return MAX_SUPER_PACKET;
  const segments = Math.min(Math.floor(MAX_DATAGRAM / (mtu + MAX_GRE)), PACKETS_PER_MESSAGE);
  return Math.min(segments * (mtu - MIN_HEADERS) + LONGEST_HEADERS, MAX_SUPER_PACKET);
}

async function addRoutes(mapping: Mapping, { device, local }: NetworkOptions, journal: Journal): Promise<void> {
  const here = contains(mapping.underlay, local);
  const source = here ? ['src', formatAddress(mapping.addressOf(local, 1n))] : [];
  // With an underlay of /32 our slice is the whole overlay, and there is no other VM to send to.
  if (!here || mapping.vmBits > 0) await addRoute([formatPrefix(mapping.overlay), 'dev', device, ...source], journal);
  // Addresses of our slice that no container has would come back to us through the overlay route.
  if (here) await addRoute(['unreachable', formatPrefix(mapping.sliceOf(local))], journal);
}

async function addRoute(words: string[], journal: Journal): Promise<void> {
  const route = [...words, 'proto', ROUTE_PROTOCOL];
  const prefix = words.find((word) => word.includes('/')) as string;
  const existing = await ip(['route', 'show', 'exact', prefix]);
  if (existing !== '') {
    throw new InlayError('ERR_FAILED', `a route to ${prefix} exists already: ${existing.trim()}`, {
      hint: `remove it (ip route del ${prefix}), or choose another overlay`,
    });
  }
  journal.add({ kind: 'route', route });
  await ip(['route', 'add', ...route]);
}

/**
 * Where the module ip_gre is loaded, the kernel handles protocol 47 beside our socket: with gre0 down it answers every packet with an ICMP
 * error, with gre0 up it delivers each packet a second time. So gre0 goes up, and reverse path filtering (RFC 3704 §2.2: the way back to an
 * overlay source leads through our device, not through gre0) drops what it decapsulates.
 */
async function quietKernelGre(journal: Journal, log: Log): Promise<void> {
  if (!existsSync(`/sys/class/net/${FALLBACK_GRE}`)) return;
  const conf = `/proc/sys/net/ipv4/conf/${FALLBACK_GRE}`;
  journal.sysctl(`${conf}/rp_filter`, '1');
  journal.sysctl(`${conf}/forwarding`, '0');
  const [link] = await ipJson<{ flags: string[] }>(['link', 'show', 'dev', FALLBACK_GRE]);
  if (!link?.flags.includes('UP')) {
    journal.add({ kind: 'link-up', name: FALLBACK_GRE });
    await ip(['link', 'set', 'dev', FALLBACK_GRE, 'up']);
    // Up, it would also take IPv6 out of anyone's GRE packets. The kernel makes this file when the device goes up for the first time.
    const ipv6 = `/proc/sys/net/ipv6/conf/${FALLBACK_GRE}/disable_ipv6`;
    if (existsSync(ipv6)) journal.sysctl(ipv6, '1');
  }
  log.info(
    { device: FALLBACK_GRE },
    'the kernel has GRE too: its copies of our packets are dropped by reverse path filtering',
  );
}
