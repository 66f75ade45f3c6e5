/**
 * Messages that the host could not write: their packets are not counted as forwarded, and where it says that it has no way to
 * their VM, the tunnel is unreachable and the container is told (RFC 1812 §5.2.7.1).
 */
import * as abi from '../abi.ts';
import { loadF64, type Memory, storeF64 } from './bytes.ts';
import { hasOffload } from './config.ts';
import { countUnwritten } from './counters.ts';
import { HOST_UNREACHABLE, MAX_CODE } from './icmp.ts';
import * as ipv4 from './ipv4.ts';
import { vmOf } from './mapping.ts';
import { contentIn, forgetContent, isMessage, placeOf, receiverOf } from './messages.ts';
import { learnReachable, learnUnreachable } from './paths.ts';
import { reply } from './replies.ts';
import { findTunnel } from './tunnels.ts';

/** Handles one message that was not written, once; `code` is that of the ICMP message that says why its VM cannot be reached, negative if it can. */
export function refuse(memory: Memory, message: number, code: number, now: number): void {
  if (!isMessage(memory, message)) return;
  const { packets, bytes, inner } = contentIn(memory, message);
  forgetContent(memory, message);
  if (packets === 0) return;
  const isOutbound = inner !== 0;
  countUnwritten(memory, isOutbound ? abi.OUTBOUND_COUNTERS : abi.INBOUND_COUNTERS, packets, bytes);
  const vm = isOutbound ? receiverOf(memory, message) : senderOf(memory, message);
  const tunnel = vm === 0 ? 0 : findTunnel(memory, vm);
  if (tunnel !== 0) {
    subtract(memory, tunnel + (isOutbound ? abi.TUNNEL_OUTBOUND_PACKETS : abi.TUNNEL_INBOUND_PACKETS), packets);
    subtract(memory, tunnel + (isOutbound ? abi.TUNNEL_OUTBOUND_BYTES : abi.TUNNEL_INBOUND_BYTES), bytes);
  }
  if (!isOutbound || code < 0 || code > MAX_CODE) return;
  if (tunnel !== 0) learnUnreachable(memory, tunnel, code, now);
  // A packet that was cut or fragmented is one packet to its sender.
  const goesOn = isMessage(memory, message - 1) && contentIn(memory, message - 1).inner === inner;
  if (!goesOn) reply(memory, inner, HOST_UNREACHABLE, 0, now);
}

/** Handles it that a packet to `vm` has gone out. */
export function reach(memory: Memory, vm: number, now: number): void {
  const tunnel = vm === 0 ? 0 : findTunnel(memory, vm);
  if (tunnel !== 0) learnReachable(memory, tunnel, now);
}

/** The VM that sent the packets of an inbound message, which is where their inner source lives; a signed number, 0 if there is no such packet. */
function senderOf(memory: Memory, message: number): number {
  const inner = placeOf(memory, message, hasOffload(memory, abi.OFFLOAD_VIRTIO) ? 1 : 0);
  return inner <= abi.MEMORY_SIZE - ipv4.IPV4_LENGTH ? vmOf(memory, ipv4.source(memory, inner)) : 0;
}

/** Subtracts from what a tunnel counts; one that was closed and opened again since has counted less. */
function subtract(memory: Memory, counter: number, amount: number): void {
  storeF64(memory, counter, Math.max(loadF64(memory, counter) - amount, 0));
}
