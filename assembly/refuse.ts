/** What the host could not write is not counted as forwarded; where it has no way to a VM, the container whose packet it was is told (RFC 1812 §5.2.7.1). */
import {
  INBOUND_COUNTERS,
  MEMORY_SIZE,
  OFFLOAD_VIRTIO,
  OUTBOUND_COUNTERS,
  TUNNEL_INBOUND_BYTES,
  TUNNEL_INBOUND_PACKETS,
  TUNNEL_OUTBOUND_BYTES,
  TUNNEL_OUTBOUND_PACKETS,
} from '../src/core/abi';
import { hasOffload } from './config';
import { countUnwritten } from './counters';
import { HOST_UNREACHABLE, LAST_CODE } from './icmp';
import { IPV4_LENGTH, source } from './ipv4';
import { vmOf } from './mapping';
import { addressee, bytesIn, clearContent, isMessage, packetOf, packetsIn, pieceAt } from './messages';
import { markReachable, markUnreachable } from './paths';
import { reply } from './replies';
import { findTunnel } from './tunnels';

/** Takes it that a message was not written; `code` is that of the ICMP message which says that its VM cannot be reached, or negative. */
export function refuseMessage(message: i32, code: i32, now: f64): void {
  if (!isMessage(message)) return;
  const packets = packetsIn(message);
  const bytes = bytesIn(message);
  clearContent(message);
  if (packets === 0) return;
  const p = packetOf(message);
  if (p === 0) {
    countUnwritten(INBOUND_COUNTERS, packets, bytes);
    const tunnel = findTunnel(senderIn(message));
    if (tunnel !== 0) takeBack(tunnel + TUNNEL_INBOUND_PACKETS, tunnel + TUNNEL_INBOUND_BYTES, packets, bytes);
    return;
  }
  countUnwritten(OUTBOUND_COUNTERS, packets, bytes);
  const vm = addressee(message);
  const tunnel = findTunnel(vm);
  if (tunnel !== 0) takeBack(tunnel + TUNNEL_OUTBOUND_PACKETS, tunnel + TUNNEL_OUTBOUND_BYTES, packets, bytes);
  if (code < 0 || <u32>code > LAST_CODE) return;
  if (tunnel !== 0) markUnreachable(tunnel, vm, <u32>code, now);
  // Of what one packet became, each message may be refused: it is answered once.
  if (!isMessage(message - 1) || packetOf(message - 1) !== p) reply(p, HOST_UNREACHABLE, 0, now);
}

/** Takes the host's word for it that a packet to `vm` has gone out. */
export function reachVm(vm: u32, now: f64): void {
  const tunnel = findTunnel(vm);
  if (tunnel !== 0) markReachable(tunnel, vm, now);
}

/** The VM that the packets of an inbound message came from: their inner source lives there. */
function senderIn(message: i32): u32 {
  const p = pieceAt(message, hasOffload(OFFLOAD_VIRTIO) ? 1 : 0);
  return p <= <u32>(MEMORY_SIZE - IPV4_LENGTH) ? vmOf(source(p)) : 0;
}

/** A tunnel that was closed and opened again since has counted less. */
function takeBack(packets: usize, bytes: usize, fewer: i32, less: i32): void {
  store<f64>(packets, max(load<f64>(packets) - <f64>fewer, 0));
  store<f64>(bytes, max(load<f64>(bytes) - <f64>less, 0));
}
