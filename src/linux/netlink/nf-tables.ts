/** Chains of nftables (<linux/netfilter/nf_tables.h>). */
import { attributes, be16, be32, message, struct, text, u8, type ValueOf } from './codec.ts';

// <linux/netfilter/nfnetlink.h>, <linux/netfilter/nf_tables.h>
const NFNL_SUBSYS_NFTABLES = 10;
export const NFT_MSG_GETCHAIN = (NFNL_SUBSYS_NFTABLES << 8) | 4;
// <linux/netfilter.h>
export const NFPROTO_INET = 1;
export const NFPROTO_IPV4 = 2;
export const NF_INET_PRE_ROUTING = 0;
export const NF_INET_FORWARD = 2;
export const NF_ACCEPT = 1;

export const chain = message(struct(4, { family: [0, u8], version: [1, u8], resource: [2, be16] }), {
  table: [1, text],
  name: [3, text],
  hook: [4, attributes({ hooknum: [1, be32] })],
  policy: [5, be32],
  type: [7, text],
});

export type Chain = ValueOf<typeof chain>;
