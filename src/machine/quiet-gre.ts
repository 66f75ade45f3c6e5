/** Where the kernel has GRE beside our raw socket, it is made to ignore the overlay's packets. */
import { existsSync } from 'node:fs';
import { IFF_UP } from '../linux/netlink/link.ts';
import { findLink } from '../linux/netlink/rtnetlink.ts';
import type { Log } from '../log.ts';
import { type ApplyOptions, apply, setLink } from './apply.ts';
import { FALLBACK_GRE, quietGreSteps } from './steps.ts';

/**
 * Where the module ip_gre is loaded, the kernel handles protocol 47 beside our socket: with gre0 down it answers every packet with an ICMP
 * error, with gre0 up it delivers each packet a second time. So gre0 goes up, and reverse path filtering (RFC 3704 §2.2: the way back to an
 * overlay source leads through our device, not through gre0) drops what it decapsulates.
 */
export function quietKernelGre({ netlink, journal }: Pick<ApplyOptions, 'netlink' | 'journal'>, log: Log): void {
  const link = findLink(netlink, FALLBACK_GRE);
  if (!link) return;
  apply(quietGreSteps(), { netlink, journal, onChange: () => {} });
  if (!(link.flags & IFF_UP)) {
    journal.add({ kind: 'link-up', name: FALLBACK_GRE });
    setLink(netlink, FALLBACK_GRE, { flags: IFF_UP, change: IFF_UP });
    // Up, it would also take IPv6 out of anyone's GRE packets. The kernel makes this file when the device goes up for the first time.
    const ipv6 = `/proc/sys/net/ipv6/conf/${FALLBACK_GRE}/disable_ipv6`;
    if (existsSync(ipv6)) journal.sysctl(ipv6, '1');
  }
  log.info(
    { device: FALLBACK_GRE },
    'the kernel has GRE too: its copies of our packets are dropped by reverse path filtering',
  );
}
