/**
 * Matches and targets of iptables, which iptables-nft writes into nftables as they are. Their structures are
 * in host order but for addresses.
 */
import type { Action } from './fate.ts';
import { type Answer, answerOf, not, type Packet, stateBit } from './packet.ts';

/** What a match or target is, and its structure. */
export interface Extension {
  name: string;
  revision: number;
  info: DataView;
}

// <linux/netfilter/xt_conntrack.h>: the state is asked for, by one name of the match or the other.
const XT_CONNTRACK_STATE = 1;
const XT_CONNTRACK_STATE_ALIAS = 1 << 13;
const XT_CONNTRACK_STATE_UNTRACKED = 1 << 8;
const MAX_PORT = 65535;
// <linux/netfilter/xt_addrtype.h>; the flags are those of revision 1, by which sources and single devices are asked for, too.
const XT_ADDRTYPE_LOCAL = 1 << 2;
const XT_ADDRTYPE_INVERT_DEST = 1 << 1;

/** Whether a match applies. What is not known here, or cut short, may apply. */
export function matches({ name, revision, info }: Extension, packet: Packet): Answer {
  try {
    return MATCHES[name]?.(info, packet, revision) ?? 'maybe';
  } catch (error) {
    if (error instanceof RangeError) return 'maybe';
    throw error;
  }
}

const MATCHES: Record<string, (info: DataView, packet: Packet, revision: number) => Answer> = {
  comment: () => 'yes',
  /** struct xt_state_info */
  state: (info, packet) => answerOf((info.getUint32(0, true) & stateBit(packet)) !== 0),
  /** struct xt_conntrack_mtinfo1 to 3: eight addresses, two times and five ports come first. */
  conntrack: (info, packet, revision) => {
    const asked = info.getUint16(146, true) & ~XT_CONNTRACK_STATE_ALIAS;
    if (revision === 0 || asked !== XT_CONNTRACK_STATE) return 'maybe';
    const mask = revision === 1 ? info.getUint8(150) : info.getUint16(150, true);
    const bit = packet.state === 'untracked' ? XT_CONNTRACK_STATE_UNTRACKED : stateBit(packet);
    const answer = answerOf((mask & bit) !== 0);
    return info.getUint16(148, true) & XT_CONNTRACK_STATE ? not(answer) : answer;
  },
  /** struct xt_addrtype_info_v1: types of the source, of the destination, flags. */
  addrtype: (info, { isForOthers }, revision) => {
    const [source, destination, flags] = [info.getUint16(0, true), info.getUint16(2, true), info.getUint32(4, true)];
    const isPlain = revision === 1 && source === 0 && (flags & ~XT_ADDRTYPE_INVERT_DEST) === 0;
    if (!isForOthers || !isPlain || destination !== XT_ADDRTYPE_LOCAL) return 'maybe';
    return answerOf((flags & XT_ADDRTYPE_INVERT_DEST) !== 0);
  },
  /** struct xt_mark_mtinfo1 */
  mark: (info, { mark }, revision) => {
    if (revision !== 1 || mark === undefined) return 'maybe';
    const answer = answerOf((mark & info.getUint32(4, true)) >>> 0 === info.getUint32(0, true));
    return info.getUint8(8) ? not(answer) : answer;
  },
  /** struct xt_udp */
  udp: (info, { port }) => {
    const isInverted = (info.getUint8(8) & 2) !== 0;
    const isAnySource = info.getUint16(0, true) === 0 && info.getUint16(2, true) === MAX_PORT;
    if (port === undefined) return 'maybe';
    const answer = answerOf(port >= info.getUint16(4, true) && port <= info.getUint16(6, true));
    const wanted = isInverted ? not(answer) : answer;
    return isAnySource || wanted === 'no' ? wanted : 'maybe';
  },
};

/** Matches that remember the packets that they see. */
const REMEMBERING = ['limit', 'hashlimit', 'recent', 'quota', 'connlimit', 'connbytes', 'nfacct'];

export function remembers(name: string | undefined): boolean {
  return name !== undefined && REMEMBERING.includes(name);
}

/** Targets that let the packet go on through the chain; most change it, or tell somebody of it. */
const PASSING = ['LOG', 'NFLOG', 'ULOG', 'TRACE', 'TCPMSS', 'CHECKSUM', 'CLASSIFY', 'DSCP', 'TOS', 'TTL', 'SET'];

/** <linux/netfilter/xt_CT.h> */
const XT_CT_NOTRACK = 1;

export function actionOf({ name, revision, info }: Extension): Action {
  if (PASSING.includes(name)) return { kind: 'touch' };
  switch (name) {
    // What connection tracking would remember is not missed.
    case 'NOTRACK':
      return { kind: 'none' };
    case 'CT':
      return { kind: info.byteLength >= 2 && info.getUint16(0, true) & XT_CT_NOTRACK ? 'none' : 'touch' };
    case 'MARK':
    case 'CONNMARK':
      return { kind: 'mark' };
    case 'REJECT':
      return { kind: 'drop' };
    case 'MASQUERADE':
      return { kind: 'masquerade' };
    case 'SNAT':
      return { kind: 'snat', address: translatedTo(info, revision) };
    case 'DNAT':
      return { kind: 'dnat', address: translatedTo(info, revision) };
    case 'REDIRECT':
      return { kind: 'redirect' };
    default:
      return { kind: 'other' };
  }
}

/**
 * struct nf_nat_ipv4_multi_range_compat of revision 0, else struct nf_nat_range: the first address behind the
 * flags. Undefined for a range of several.
 */
function translatedTo(info: DataView, revision: number): number | undefined {
  const [flagsAt, minAt, maxAt] = revision === 0 ? [4, 8, 12] : [0, 4, 20];
  try {
    const [flags, min, max] = [info.getUint32(flagsAt, true), info.getUint32(minAt), info.getUint32(maxAt)];
    return flags & NF_NAT_RANGE_MAP_IPS && min === max ? min : undefined;
  } catch {
    return undefined;
  }
}
/** <linux/netfilter/nf_nat.h> */
const NF_NAT_RANGE_MAP_IPS = 1;
