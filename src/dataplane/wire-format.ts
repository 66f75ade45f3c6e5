/** What packets look like on the underlay, as a firewall's rule names it. */
import { GRE_UDP_PORT } from '../core/abi.ts';

/** RFC 7348 §5. */
export const VXLAN_PORT = 4789;

export function wireFormat(encapsulation: string): string {
  if (encapsulation === 'gre') return 'IP protocol 47';
  return `UDP port ${encapsulation === 'vxlan' ? VXLAN_PORT : GRE_UDP_PORT}`;
}
