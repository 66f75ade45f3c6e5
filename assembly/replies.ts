/** ICMP messages to containers whose packets do not get through (RFC 792; RFC 1122 §3.2.2, RFC 1812 §4.3). */
import {
  BUCKET_OF_ALL,
  COUNTERS_REPLIES,
  COUNTERS_SUPPRESSED,
  MESSAGES,
  OFFLOAD_VIRTIO,
  OUTBOUND_COUNTERS,
  RELAY_BUCKETS,
  REPLIES,
  REPLY_BUCKETS,
  REPLY_BURST,
  REPLY_ICMP,
  REPLY_INTERVAL,
  REPLY_IPV4,
  REPLY_PORT,
  REPLY_SIZE,
  REPLY_SOURCE_BURST,
  REPLY_SOURCE_INTERVAL,
  REPLY_VIRTIO,
  SOURCES_LOG2,
  VIRTIO_SIZE,
} from '../src/core/abi';
import { addF64 } from './bytes';
import { hasOffload } from './config';
import { ICMP_LENGTH, icmpType, isError, PROTOCOL_ICMP, putUnreachable } from './icmp';
import {
  DONT_FRAGMENT,
  destination,
  headerLength,
  IPV4_LENGTH,
  isLaterFragment,
  protocol,
  putIpv4,
  source,
  totalLength,
} from './ipv4';
import { vmAddress } from './mapping';
import { addPiece, openMessage, setContent, setPiece } from './messages';
import { clearVirtio } from './virtio';

// From the specifications.
/** "SHOULD contain as much of the original datagram as possible without the length of the ICMP datagram exceeding 576 bytes" (RFC 1812 §4.3.2.3). */
const MAX_QUOTE: i32 = 576 - IPV4_LENGTH - ICMP_LENGTH;
/** Internetwork control (RFC 1812 §4.3.2.5). */
const PRECEDENCE: u32 = 0xc0;
const TIME_TO_LIVE: u32 = 64;

/** Answers the container's packet at `p` with this code; `mtu` goes with FRAGMENTATION_NEEDED. */
export function reply(p: usize, code: u32, mtu: i32, now: f64): void {
  answer(p, totalLength(p), code, mtu, REPLY_BUCKETS, now);
}

/** Passes on what the underlay says about the packet at `p`, of which `length` bytes are there. Whoever forges such messages takes nobody's replies by that. */
export function relay(p: usize, length: i32, code: u32, mtu: i32, now: f64): void {
  answer(p, length, code, mtu, RELAY_BUCKETS, now);
}

function answer(p: usize, length: i32, code: u32, mtu: i32, buckets: usize, now: f64): void {
  if (!mayBeAnswered(p)) return;
  if (!takeToken(buckets, source(p), now)) {
    addF64(OUTBOUND_COUNTERS + COUNTERS_SUPPRESSED, 1);
    return;
  }
  addF64(OUTBOUND_COUNTERS + COUNTERS_REPLIES, 1);
  const message = openMessage(REPLY_PORT);
  const block = <usize>(REPLIES + (message - MESSAGES) * REPLY_SIZE);
  const quote = min(length, MAX_QUOTE);
  const to = source(p);
  const ip = block + REPLY_IPV4;
  putIpv4(
    ip,
    PRECEDENCE,
    IPV4_LENGTH + ICMP_LENGTH + quote,
    DONT_FRAGMENT,
    TIME_TO_LIVE,
    PROTOCOL_ICMP,
    bswap<u32>(vmAddress(to)),
    bswap<u32>(to),
  );
  putUnreachable(block + REPLY_ICMP, code, mtu, p, quote);
  setContent(message, 0, 0, 0, 0);
  if (hasOffload(OFFLOAD_VIRTIO)) {
    clearVirtio(block + REPLY_VIRTIO);
    setPiece(message, block + REPLY_VIRTIO, VIRTIO_SIZE + IPV4_LENGTH + ICMP_LENGTH);
  } else {
    setPiece(message, ip, IPV4_LENGTH + ICMP_LENGTH);
  }
  addPiece(message, p, quote);
}

/** RFC 1122 §3.2.2: not about ICMP errors, multicast, broadcast, and fragments other than the first. That the source is one host, it has been seen. */
function mayBeAnswered(p: usize): bool {
  if (isLaterFragment(p)) return false;
  const to = destination(p);
  if (to >> 28 === 14 || to === 0xffffffff) return false;
  if (protocol(p) !== PROTOCOL_ICMP) return true;
  if (totalLength(p) === headerLength(p)) return false;
  return !isError(icmpType(p + <usize>headerLength(p)));
}

/** Takes a token from the bucket of the source and from that of all, if both have one (RFC 1812 §4.3.2.8). */
function takeToken(buckets: usize, from: u32, now: f64): bool {
  const bucket = buckets + <usize>(8 * (from & ((1 << SOURCES_LOG2) - 1)));
  const ofAll = buckets + BUCKET_OF_ALL;
  if (!hasToken(bucket, REPLY_SOURCE_INTERVAL, REPLY_SOURCE_BURST, now)) return false;
  if (!hasToken(ofAll, REPLY_INTERVAL, REPLY_BURST, now)) return false;
  store<f64>(bucket, max(load<f64>(bucket), now) + REPLY_SOURCE_INTERVAL);
  store<f64>(ofAll, max(load<f64>(ofAll), now) + REPLY_INTERVAL);
  return true;
}

/** A bucket is the time at which it is full again: the generic cell rate algorithm (ITU-T I.371). */
function hasToken(bucket: usize, interval: f64, burst: f64, now: f64): bool {
  return load<f64>(bucket) - now <= (burst - 1) * interval;
}
