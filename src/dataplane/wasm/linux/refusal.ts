/** What the kernel means when it does not take a message for the underlay. */
import * as native from '../../../linux/native.ts';

/** `too-long` for the route or its device; `no-segmentation`: the route takes no message of several datagrams (UDP_SEGMENT, udp(7)). */
export type Refusal = 'too-long' | 'no-segmentation' | 'other';

/** `hasSegments` says whether the message asks the kernel to cut it into datagrams. */
export function refusalOf(errno: number, hasSegments: boolean): Refusal {
  switch (errno) {
    case native.EMSGSIZE:
      return 'too-long';
    case native.EINVAL:
      // Older kernels: a datagram of such a message is longer than the route's MTU (udp_send_skb in net/ipv4/udp.c).
      return hasSegments ? 'too-long' : 'other';
    case native.EIO:
      // A route through IPsec or, before Linux 6.11, a device without checksum offload (udp_send_skb again).
      return 'no-segmentation';
    default:
      return 'other';
  }
}
