/** What happens in a run, by name: all of it has to, sooner or later, besides every verdict that a core itself can give. */
import { abi } from 'inlay/core';
import { u16 } from './bytes.mjs';

export const newMet = () => ({
  cut: 0,
  whole: 0,
  joined: 0,
  fragments: 0,
  clamped: 0,
  'identification used': 0,
  'merged TCP': 0,
  'merged UDP': 0,
  'merged before': 0,
  'cut inbound': 0,
  'open checksum': 0,
  'another port': 0,
  'outbound reply': 0,
  'icmp reply': 0,
  'path MTU lowered': 0,
  'path MTU forgotten': 0,
  'unreachable learnt': 0,
  'unreachable cleared': 0,
  continued: 0,
  evicted: 0,
  expired: 0,
  narrowed: 0,
  refused: 0,
  'refused reply': 0,
  'reached again': 0,
  crowded: 0,
});

/** Tunnels from which on the Wasm core reads ahead. */
const CROWD = 4096;
const [TCP, SYN] = [6, 2];

/** Adds what the last call of the view did to `met`. `before` tells the byte that was at an address when it began. */
export function tally(view, direction, met, before) {
  const { core } = view;
  if (core.tunnels.count > CROWD) met.crowded++;
  if (core.tunnels.haveChanged) tallyChanges(view, direction, met);
  const replies = core.messages.count(abi.REPLY_PORT);
  if (replies > 0) met[`${direction} reply`] += replies;
  for (let port = 0; port < abi.MAX_PORTS; port++) {
    const count = core.messages.count(port);
    if (port > 0 && count > 0) met['another port']++;
    for (let message = port * abi.MESSAGES_PER_PORT, end = message + count; message < end; message++) {
      if (direction === 'outbound') tallySent(view, message, met, before);
      else tallyDelivered(view, message, met, before);
    }
  }
}

function tallyChanges({ core, config }, direction, met) {
  if (core.tunnels.closed().length > 0) met.evicted++;
  for (const { pathMtu, unreachable } of core.tunnels.learnt()) {
    if (direction === 'icmp' && unreachable !== undefined) met['unreachable learnt']++;
    else if (direction === 'icmp' && pathMtu !== undefined) met['path MTU lowered']++;
    else if (direction === 'inbound' && (config.options & abi.OPTION_CLAMP_MSS) === 0) met['unreachable cleared']++;
    else if (pathMtu === undefined) met['path MTU forgotten']++;
  }
}

function tallySent(view, message, met, before) {
  const { bytes, config } = view;
  const isWhole = view.core.messages.isWhole(message);
  if (isWhole) met.whole++;
  else if (view.packets(message) > 1) met.joined++;
  const outer = view.pieceStart(message, 0) + (isWhole ? abi.VIRTIO_SIZE : 0);
  if (!config.isUdp && u16(bytes, outer + 4) !== 0) met['identification used']++;
  const inner = outer + config.outer;
  if (outer >= abi.SLOTS) tallyClamped(view, inner, met, before);
  else met[(u16(bytes, inner + 6) & 0x3fff) === 0 ? 'cut' : 'fragments']++;
}

function tallyDelivered(view, message, met, before) {
  const { bytes } = view;
  const first = view.pieceStart(message, 0);
  if (first >= abi.SLOTS) return tallyClamped(view, first, met, before);
  // It is a virtio header, with or without others, or these alone.
  if (view.pieceLength(message, 0) !== abi.VIRTIO_SIZE) met['cut inbound']++;
  else if (view.packets(message) > 1 && view.core.messages.pieces(message) === 2) met['merged before']++;
  else if (view.packets(message) > 1) met[bytes[first + abi.VIRTIO_GSO_TYPE] === 1 ? 'merged TCP' : 'merged UDP']++;
  else if (bytes[first + abi.VIRTIO_FLAGS] === 1) met['open checksum']++;
  if (view.pieceLength(message, 0) === abi.VIRTIO_SIZE) tallyClamped(view, view.pieceStart(message, 1), met, before);
}

/** Whether the TCP options of the packet at `inner` are not those that it came with. */
function tallyClamped({ bytes, config }, inner, met, before) {
  if ((config.options & abi.OPTION_CLAMP_MSS) === 0 || bytes[inner + 9] !== TCP) return;
  const tcp = inner + (bytes[inner] & 15) * 4;
  if ((bytes[tcp + 13] & SYN) === 0) return;
  for (let at = tcp + 20, end = tcp + (bytes[tcp + 12] >> 4) * 4; at < end; at++) {
    if (bytes[at] === before(at)) continue;
    met.clamped++;
    return;
  }
}
