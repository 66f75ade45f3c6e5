/** <linux/in.h> */
export const IPPROTO_ICMP = 1;
export const IPPROTO_TCP = 6;
export const IPPROTO_UDP = 17;
export const IPPROTO_GRE = 47;
/** UDP (RFC 7348 §5). */
export const VXLAN_PORT = 4789;
