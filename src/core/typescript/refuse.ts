/**
 * Messages that the host could not write: their packets are not counted as forwarded, and where it says that it has no way to
 * their VM, the tunnel is unreachable and the container is told (RFC 1812 §5.2.7.1).
 */
import * as abi from '../abi.ts';
import { loadF64, type Memory, storeF64 } from './bytes.ts';
import { hasOffload } from './config.ts';
import { countUnwritten } from './counters.ts';
import { HOST_UNREACHABLE, LAST_CODE } from './icmp.ts';
import * as ipv4 from './ipv4.ts';
import { vmOf } from './mapping.ts';
import * as messages from './messages.ts';
import { markReachable, markUnreachable } from './paths.ts';
import { reply } from './replies.ts';
import { findTunnel } from './tunnels.ts';

/** Handles one message that was not written, once; `code` is that of the ICMP message that says why its VM cannot be reached, negative if it can. */
export function refuseMessage(memory: Memory, message: number, code: number, now: number): void {
  if (!messages.isMessage(memory, message)) return;
  const packets = messages.packetsIn(memory, message);
  const bytes = messages.bytesIn(memory, message);
  messages.clearContent(memory, message);
  if (packets === 0) return;
  const p = messages.packetOf(memory, message);
  const isOutbound = p !== 0;
  countUnwritten(memory, isOutbound ? abi.OUTBOUND_COUNTERS : abi.INBOUND_COUNTERS, packets, bytes);
  const vm = isOutbound ? messages.addressee(memory, message) : senderIn(memory, message);
  const tunnel = findTunnel(memory, vm);
  if (tunnel !== 0) {
    subtract(memory, tunnel + (isOutbound ? abi.TUNNEL_OUTBOUND_PACKETS : abi.TUNNEL_INBOUND_PACKETS), packets);
    subtract(memory, tunnel + (isOutbound ? abi.TUNNEL_OUTBOUND_BYTES : abi.TUNNEL_INBOUND_BYTES), bytes);
  }
  if (!isOutbound || code < 0 || code > LAST_CODE) return;
  if (tunnel !== 0) markUnreachable(memory, tunnel, vm, code, now);
  // A packet that was cut or fragmented is one packet to its sender.
  const goesOn = messages.isMessage(memory, message - 1) && messages.packetOf(memory, message - 1) === p;
  if (!goesOn) reply(memory, p, HOST_UNREACHABLE, 0, now);
}

/** Handles it that a packet to `vm` has gone out. */
export function reachVm(memory: Memory, vm: number, now: number): void {
  const tunnel = findTunnel(memory, vm);
  if (tunnel !== 0) markReachable(memory, tunnel, vm, now);
}

/** The VM that sent the packets of an inbound message, which is where their inner source lives; 0 if there is no such packet. */
function senderIn(memory: Memory, message: number): number {
  const p = messages.pieceAt(memory, message, hasOffload(memory, abi.OFFLOAD_VIRTIO) ? 1 : 0);
  return p <= abi.MEMORY_SIZE - ipv4.IPV4_LENGTH ? vmOf(memory, ipv4.source(memory, p)) : 0;
}

/** Subtracts from what a tunnel counts; one that was closed and opened again since has counted less. */
function subtract(memory: Memory, counter: number, amount: number): void {
  storeF64(memory, counter, Math.max(loadF64(memory, counter) - amount, 0));
}
