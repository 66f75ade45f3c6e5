/** Why the kernel did not take a packet, by the error number: what most likely is the cause, and what the operator can do (sendmsg(2), raw(7), udp(7), ip(7)). */
import type { DeviceName } from './drop-log.ts';

interface RefusalCause {
  readonly cause: string;
  readonly hint?: string;
  /**
   * Where no packet gets to that VM: the code of the ICMP message, destination unreachable, that a router would
   * send (RFC 1812 §5.2.7.1; ip_error in net/ipv4/route.c).
   */
  readonly code?: number;
}

const SEE_ROUTE = 'look at the route to that VM: ip route get VM';

/** What is sent to other VMs. */
const UNDERLAY: Readonly<Record<string, RefusalCause>> = {
  ENETUNREACH: {
    cause: 'this VM has no route to that VM',
    hint: `${SEE_ROUTE}; a default route may have gone`,
    code: 0,
  },
  EHOSTUNREACH: { cause: 'the route to that VM says that it is unreachable', hint: SEE_ROUTE, code: 1 },
  EACCES: {
    cause: 'the route to that VM prohibits it, or its address is the broadcast address of the underlay device',
    hint: `${SEE_ROUTE}; compare the underlay prefix with that of the device: ip address`,
    code: 13,
  },
  ENETDOWN: { cause: 'the underlay device is down', hint: 'set it up: ip link set DEVICE up', code: 0 },
  EPERM: {
    cause: 'a firewall of this VM drops the packets at OUTPUT',
    hint: 'allow protocol 47 (gre) or UDP port 4754 (gre-udp): nft list ruleset, or iptables -L OUTPUT -v',
  },
  EMSGSIZE: { cause: 'the packet is longer than the route or its device allows', hint: 'lower --underlay-mtu' },
  // Of a packet that is malformed it says nothing about the VM, so there is no code.
  EINVAL: { cause: 'the kernel finds the packet malformed, or the route to that VM is a blackhole', hint: SEE_ROUTE },
  ENOBUFS: { cause: 'the transmit queue of the underlay device is full', hint: 'look at the queue: tc -s qdisc' },
  EAGAIN: { cause: 'the socket buffer is full: packets come faster than the underlay device sends them' },
  ENOMEM: { cause: 'the kernel has no memory for the packet' },
  EIO: { cause: 'the route takes no message of several datagrams; packets are sent one by one from now on' },
  EADDRNOTAVAIL: { cause: "this VM's underlay address has gone", hint: 'look at the addresses: ip address' },
};

/** What is delivered to this VM's containers, and super-packets that the kernel is to cut. */
const OVERLAY: Readonly<Record<string, RefusalCause>> = {
  EIO: { cause: 'the overlay device is down', hint: 'Inlay sets it up again; look who sets it down' },
  EBADFD: { cause: 'the overlay device was deleted', hint: 'Inlay makes it anew; look who deletes it' },
  EINVAL: { cause: 'the kernel finds the packet or its virtio header malformed' },
  EAGAIN: { cause: 'the overlay device is full' },
  ENOBUFS: { cause: 'the overlay device is full' },
  ENOMEM: { cause: 'the kernel has no memory for the packet' },
};

/** What an error number, by its name, means where a packet was written to this device. */
export function refusalCause(device: DeviceName, errno: string): RefusalCause {
  const causes = device === 'underlay' ? UNDERLAY : OVERLAY;
  return causes[errno] ?? { cause: 'the kernel did not take the packet' };
}
