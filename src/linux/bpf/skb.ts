/** What programs see of a packet, and how its room is changed (<linux/bpf.h>): offsets in struct __sk_buff first. */
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

// bpf_skb_adjust_room in bpf-helpers(7): where, and flags.
export const ROOM_AT_MAC = 1;
/** The segment size stays, whatever the length of the headers. */
export const ROOM_FIXED_GSO = 0x01;
export const ROOM_ENCAP_IPV4 = 0x02;
export const ROOM_ENCAP_GRE = 0x08;
export const ROOM_ENCAP_UDP = 0x10;
/** The card has verified the inner checksum, where there is no other. Linux 5.8. */
export const ROOM_NO_CSUM_RESET = 0x20;
/** Of which tunnel the headers were. Linux 7. */
export const ROOM_DECAP_GRE = 0x200;
export const ROOM_DECAP_UDP = 0x400;
