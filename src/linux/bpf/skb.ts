/** What programs see of a packet: offsets in struct __sk_buff (<linux/bpf.h>). */
export const SKB_LENGTH = 0;
export const SKB_MARK = 8;
export const SKB_PROTOCOL = 16;
export const SKB_DATA = 76;
export const SKB_DATA_END = 80;
export const SKB_GSO_SEGMENTS = 164;
/** Needs Linux 5.7. */
export const SKB_GSO_SIZE = 176;
