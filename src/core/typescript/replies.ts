/**
 * Replies: ICMP messages to containers whose packets cannot be delivered (RFC 792, RFC 1122 §3.2.2, RFC 1812 §4.3). They
 * come from the VM's own overlay address, and only so many, since who sends garbage is not to be paid in kind.
 */
import * as abi from '../abi.ts';
import { addF64, loadF64, type Memory, storeF64 } from './bytes.ts';
import { hasOffload } from './config.ts';
import * as icmp from './icmp.ts';
import * as ipv4 from './ipv4.ts';
import { vmAddress } from './mapping.ts';
import { addPiece, openMessage } from './messages.ts';
import { clearVirtio } from './virtio.ts';

// From the specification.

/** Precedence 6, internetwork control (RFC 1812 §4.3.2.5). */
const TOS = 0xc0;
/** "as much of the original datagram as possible without the length of the ICMP datagram exceeding 576 bytes" (RFC 1812 §4.3.2.3). */
const MAX_LENGTH = 576;
const HEADERS = ipv4.IPV4_LENGTH + icmp.ICMP_LENGTH;
const MULTICAST = 0xe0000000 | 0;
const MULTICAST_MASK = 0xf0000000 | 0;
const BROADCAST = -1;

// From this implementation.

const TTL = 64;
/** Sources, all of this VM, are told apart by that many: it has no more containers, or they share buckets. */
const SOURCES = 2 ** abi.SOURCES_LOG2;

/**
 * Answers the packet at `p`, whose IPv4 header and source are right, with the code that says why its destination cannot be
 * reached, and `mtu`, where this is the reason, else 0; unless it is one that must not be answered, or there are too many.
 */
export function reply(memory: Memory, p: number, code: number, mtu: number, now: number): void {
  answer(memory, p, ipv4.totalLength(memory, p), code, mtu, abi.REPLY_BUCKETS, now);
}

/**
 * As `reply`, about a packet of which `length` bytes are quoted by a message from the underlay. Its tokens are others: who
 * forges such messages is not to use up those of the true ones.
 */
export function relay(memory: Memory, p: number, length: number, code: number, mtu: number, now: number): void {
  answer(memory, p, length, code, mtu, abi.RELAY_BUCKETS, now);
}

function answer(
  memory: Memory,
  p: number,
  length: number,
  code: number,
  mtu: number,
  buckets: number,
  now: number,
): void {
  if (!isAnswered(memory, p)) return;
  if (!takeTokens(memory, buckets, ipv4.source(memory, p), now)) {
    addF64(memory, abi.OUTBOUND_COUNTERS + abi.COUNTERS_SUPPRESSED, 1);
    return;
  }
  addF64(memory, abi.OUTBOUND_COUNTERS + abi.COUNTERS_REPLIES, 1);
  const message = openMessage(memory, abi.REPLY_PORT);
  const block = abi.REPLIES + (message - abi.MESSAGES) * abi.REPLY_SIZE;
  const quoted = Math.min(length, MAX_LENGTH - HEADERS);
  putHeaders(memory, block, p, code, mtu, quoted);
  if (hasOffload(memory, abi.OFFLOAD_VIRTIO)) {
    clearVirtio(memory, block + abi.REPLY_VIRTIO);
    addPiece(memory, message, block + abi.REPLY_VIRTIO, abi.VIRTIO_SIZE + HEADERS);
  } else {
    addPiece(memory, message, block + abi.REPLY_IPV4, HEADERS);
  }
  addPiece(memory, message, p, quoted);
}

/** Whether an ICMP message about the packet may be sent: not about fragments but the first, not to many, not about another such message (RFC 1122 §3.2.2). */
function isAnswered(memory: Memory, p: number): boolean {
  if (ipv4.isLaterFragment(memory, p)) return false;
  const destination = ipv4.destination(memory, p);
  if ((destination & MULTICAST_MASK) === MULTICAST || destination === BROADCAST) return false;
  if (ipv4.protocol(memory, p) !== icmp.PROTOCOL_ICMP) return true;
  const header = ipv4.headerLength(memory, p);
  return ipv4.totalLength(memory, p) > header && !icmp.isError(icmp.icmpType(memory, p + header));
}

/** Puts the IPv4 and the ICMP header of the reply that quotes the first `quoted` bytes of the packet at `p`. */
function putHeaders(memory: Memory, block: number, p: number, code: number, mtu: number, quoted: number): void {
  const to = ipv4.source(memory, p);
  const from = vmAddress(memory, to);
  const header = block + abi.REPLY_IPV4;
  ipv4.putIpv4(memory, header, TOS, HEADERS + quoted, ipv4.DONT_FRAGMENT, TTL, icmp.PROTOCOL_ICMP, from, to);
  icmp.putUnreachable(memory, block + abi.REPLY_ICMP, code, mtu, p, quoted);
}

/**
 * Takes a token from the bucket of all and one from that of the source, if both have one. A bucket is the time at which it
 * is full again: each token moves that by one interval, and nothing is to be done as time goes by.
 */
function takeTokens(memory: Memory, buckets: number, source: number, now: number): boolean {
  const all = buckets + abi.BUCKET_OF_ALL;
  const own = buckets + 8 * ((source >>> 0) % SOURCES);
  const ofSource = loadF64(memory, own);
  const ofAll = loadF64(memory, all);
  const hasOne =
    ofAll - now <= (abi.REPLY_BURST - 1) * abi.REPLY_INTERVAL &&
    ofSource - now <= (abi.REPLY_SOURCE_BURST - 1) * abi.REPLY_SOURCE_INTERVAL;
  if (!hasOne) return false;
  storeF64(memory, all, Math.max(ofAll, now) + abi.REPLY_INTERVAL);
  storeF64(memory, own, Math.max(ofSource, now) + abi.REPLY_SOURCE_INTERVAL);
  return true;
}
