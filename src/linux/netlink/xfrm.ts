/**
 * Policies of IPsec (<linux/xfrm.h>, ip-xfrm(8)): which packets are to be encrypted, and which to come
 * encrypted.
 */
import { be32, bytes, message, s32, struct, u8, u16, u32, type ValueOf } from './codec.ts';

// <linux/xfrm.h>
export const XFRM_MSG_GETPOLICY = 0x15;
export const XFRM_MSG_GETDEFAULT = 0x28;
export const XFRMNLGRP_POLICY = 4;
export const XFRM_POLICY_ALLOW = 0;
export const XFRM_USERPOLICY_BLOCK = 1;

const mark = struct(8, { value: [0, u32], mask: [4, u32] });

/**
 * struct xfrm_userpolicy_info, which begins with struct xfrm_selector. Of addresses, the first 4 bytes are
 * read: those of IPv4.
 */
export const policy = message(
  struct(168, {
    destination: [0, be32],
    source: [16, be32],
    family: [40, u16],
    destinationLength: [42, u8],
    sourceLength: [43, u8],
    protocol: [44, u8],
    ifindex: [48, s32],
    index: [156, u32],
    direction: [160, u8],
    action: [161, u8],
  }),
  {
    /** What is to be done to the packets; a policy without lets them pass as they are, or drops them. */
    templates: [5, bytes],
    mark: [21, mark],
    /** Of an xfrm device: the policy is about its packets alone. */
    interfaceId: [31, u32],
  },
);

export type Policy = ValueOf<typeof policy>;

/** struct xfrm_userpolicy_id: which policies a request is for. */
export const policyId = message(struct(64, {}), {});

/** struct xfrm_userpolicy_default: what becomes of packets that no policy is about. Needs Linux 5.14. */
export const policyDefault = struct(3, { in: [0, u8], forward: [1, u8], out: [2, u8] });
