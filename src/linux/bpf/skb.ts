/** What programs see of a packet: offsets in struct __sk_buff (<linux/bpf.h>). */
export const SKB_LENGTH = 0;
export const SKB_PACKET_TYPE = 4;
export const SKB_MARK = 8;
export const SKB_PROTOCOL = 16;
/** Whether there is a VLAN tag, which the kernel has taken out of the frame. */
export const SKB_VLAN_PRESENT = 20;
export const SKB_IFINDEX = 40;
export const SKB_DATA = 76;
export const SKB_DATA_END = 80;
export const SKB_GSO_SEGMENTS = 164;
/** Needs Linux 5.7. */
export const SKB_GSO_SIZE = 176;
