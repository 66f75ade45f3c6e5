/**
 * nftables (<linux/netfilter/nf_tables.h>): tables, chains and rules, and the expressions that rules are made
 * of. All numbers are in network order.
 */
import {
  attributes,
  be16,
  be32,
  be64,
  bytes,
  type Codec,
  list,
  message,
  putAttribute,
  struct,
  text,
  u8,
  type ValueOf,
} from './codec.ts';

// <linux/netfilter/nfnetlink.h>, <linux/netfilter/nf_tables.h>
export const NFNL_SUBSYS_NFTABLES = 10;
/** What stands around the messages of one transaction; the subsystem is in `resource` of the first. */
export const NFNL_MSG_BATCH_BEGIN = 16;
export const NFNL_MSG_BATCH_END = 17;
export const NFT_MSG_NEWTABLE = NFNL_SUBSYS_NFTABLES << 8;
export const NFT_MSG_DELTABLE = (NFNL_SUBSYS_NFTABLES << 8) | 2;
export const NFT_MSG_NEWCHAIN = (NFNL_SUBSYS_NFTABLES << 8) | 3;
export const NFT_MSG_NEWRULE = (NFNL_SUBSYS_NFTABLES << 8) | 6;
export const NFT_MSG_GETTABLE = (NFNL_SUBSYS_NFTABLES << 8) | 1;
export const NFT_MSG_GETCHAIN = (NFNL_SUBSYS_NFTABLES << 8) | 4;
export const NFT_MSG_GETRULE = (NFNL_SUBSYS_NFTABLES << 8) | 7;
export const NFT_MSG_GETSET = (NFNL_SUBSYS_NFTABLES << 8) | 10;
export const NFT_MSG_GETSETELEM = (NFNL_SUBSYS_NFTABLES << 8) | 13;
export const NFT_MSG_NEWGEN = (NFNL_SUBSYS_NFTABLES << 8) | 15;
export const NFT_MSG_GETGEN = (NFNL_SUBSYS_NFTABLES << 8) | 16;
export const NFNLGRP_NFTABLES = 7;
/** The hooks of the table are not registered. */
export const NFT_TABLE_F_DORMANT = 1;
// <linux/netfilter.h>
export const NFPROTO_INET = 1;
export const NFPROTO_IPV4 = 2;
export const NFPROTO_NETDEV = 5;
export const NF_INET_PRE_ROUTING = 0;
export const NF_INET_LOCAL_IN = 1;
export const NF_INET_FORWARD = 2;
export const NF_INET_LOCAL_OUT = 3;
export const NF_INET_POST_ROUTING = 4;
export const NF_INET_INGRESS = 5;
export const NF_DROP = 0;
export const NF_ACCEPT = 1;

const nfgenmsg = struct(4, { family: [0, u8], version: [1, u8], resource: [2, be16] });

/** A message without attributes. */
export const bare = message(nfgenmsg, {});

export const table = message(nfgenmsg, { name: [1, text], flags: [2, be32] });

/** Names, and of those that end with `*` all that begin so. */
const deviceNames: Codec<readonly string[]> = {
  put: (writer, names) => list(1, text).put(writer, names),
  get: (...place) => [
    ...list(1, text).get(...place),
    ...list(2, text)
      .get(...place)
      .map((prefix) => `${prefix}*`),
  ],
};

export const chain = message(nfgenmsg, {
  table: [1, text],
  name: [3, text],
  hook: [
    4,
    attributes({
      hooknum: [1, be32],
      /** Signed; of several chains, the one with the least comes first. */
      priority: [2, be32],
      /** Of chains at devices: one, or several. */
      device: [3, text],
      devices: [4, deviceNames],
    }),
  ],
  policy: [5, be32],
  type: [7, text],
});

export type Chain = ValueOf<typeof chain>;

/** The number of the last change of any rule set in this network namespace. */
export const generation = message(nfgenmsg, { id: [1, be32] });

const data = attributes({ value: [1, bytes], verdict: [2, attributes({ code: [1, be32], chain: [2, text] })] });

/** Those that are looked into; of the others, only the name counts. */
const EXPRESSIONS = {
  immediate: attributes({ dreg: [1, be32], data: [2, data] }),
  cmp: attributes({ sreg: [1, be32], op: [2, be32], data: [3, data] }),
  bitwise: attributes({
    sreg: [1, be32],
    dreg: [2, be32],
    len: [3, be32],
    mask: [4, data],
    xor: [5, data],
    op: [6, be32],
  }),
  payload: attributes({ dreg: [1, be32], base: [2, be32], offset: [3, be32], len: [4, be32] }),
  meta: attributes({ dreg: [1, be32], key: [2, be32] }),
  ct: attributes({ dreg: [1, be32], key: [2, be32] }),
  range: attributes({ sreg: [1, be32], op: [2, be32], from: [3, data], to: [4, data] }),
  lookup: attributes({ set: [1, text], sreg: [2, be32], dreg: [3, be32], flags: [5, be32] }),
  nat: attributes({ type: [1, be32], addressMin: [3, be32], addressMax: [4, be32] }),
  fib: attributes({ dreg: [1, be32], result: [2, be32], flags: [3, be32] }),
  counter: attributes({ bytes: [1, be64], packets: [2, be64] }),
  /** Matches and targets of iptables; `info` is theirs. */
  match: attributes({ name: [1, text], revision: [2, be32], info: [3, bytes] }),
  target: attributes({ name: [1, text], revision: [2, be32], info: [3, bytes] }),
};

type Known = { [N in keyof typeof EXPRESSIONS]: { name: N; data: ValueOf<(typeof EXPRESSIONS)[N]> } };
export type Expression = Known[keyof Known] | { name: string; data?: undefined };

const isKnown = (name: string): name is keyof typeof EXPRESSIONS => Object.hasOwn(EXPRESSIONS, name);
const parts = attributes({ name: [1, text], data: [2, bytes] });

const expression: Codec<Expression> = {
  put: (writer, { name, data }) => {
    putAttribute(writer, 1, text, name);
    if (data && isKnown(name)) putAttribute(writer, 2, EXPRESSIONS[name] as Codec<unknown>, data);
  },
  get: (...at) => {
    const { name = '', data: raw } = parts.get(...at);
    if (!raw || !isKnown(name)) return { name };
    const view = new DataView(raw.buffer, raw.byteOffset, raw.length);
    return { name, data: EXPRESSIONS[name].get(view, 0, raw.length) } as Expression;
  },
};

export const rule = message(nfgenmsg, {
  table: [1, text],
  chain: [2, text],
  expressions: [4, list(1, expression)],
  /** What nft(8) notes for itself, such as a comment. */
  userdata: [7, bytes],
});

export type Rule = ValueOf<typeof rule>;

/** NFTNL_UDATA_RULE_COMMENT (libnftnl/udata.h): type, length, text. */
const COMMENT = 0;

/** A comment as nft(8) writes it into a rule, and shows it. */
export function commentOf(words: string): Uint8Array {
  const value = new TextEncoder().encode(`${words}\0`);
  return Uint8Array.of(COMMENT, value.length, ...value);
}

/** The comment of a rule; undefined if it has none. */
export function commentIn(userdata: Uint8Array | undefined): string | undefined {
  if (!userdata || userdata[0] !== COMMENT) return undefined;
  return new TextDecoder().decode(userdata.subarray(2, 1 + (userdata[1] ?? 0)));
}

// Flags of sets: what is in them goes by itself, or rules put it there.
export const NFT_SET_TIMEOUT = 0x10;
export const NFT_SET_EVAL = 0x20;

export const set = message(nfgenmsg, { table: [1, text], name: [2, text], flags: [3, be32] });

/**
 * What is in a set or a map, by the names of its table and itself. An interval has an element for each end,
 * or its last key in `keyEnd`.
 */
export const elements = message(nfgenmsg, {
  table: [1, text],
  set: [2, text],
  elements: [3, list(1, attributes({ key: [1, data], data: [2, data], flags: [3, be32], keyEnd: [10, data] }))],
});

export type Element = NonNullable<ValueOf<typeof elements>['elements']>[number];
