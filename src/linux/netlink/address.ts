/** Addresses of links (struct ifaddrmsg, <linux/if_addr.h>). */
import { bytes, message, type PutOf, struct, text, u8, u32, type ValueOf } from './codec.ts';

// <linux/rtnetlink.h>
export const RTM_NEWADDR = 20;
export const RTM_DELADDR = 21;
export const RTM_GETADDR = 22;
export const RTNLGRP_IPV4_IFADDR = 5;
export const RTNLGRP_IPV6_IFADDR = 9;

export const address = message(
  struct(8, { family: [0, u8], prefixLength: [1, u8], flags: [2, u8], scope: [3, u8], index: [4, u32] }),
  {
    /** The other end of a point-to-point link; else as `local`. */
    address: [1, bytes],
    local: [2, bytes],
    label: [3, text],
    /** Who made the address (Linux 5.18). */
    protocol: [11, u8],
  },
);

export type Address = ValueOf<typeof address>;
export type AddressRequest = PutOf<typeof address>;
