/** Packets of a pcap through a core, batch by batch: the loop that every host has. */
import { abi, ipv4, mapping, verdictName } from 'inlay/core';
import { PcapWriter, readPcap } from './pcap.js';

/** @typedef {import('./pcap.js').Packet} Packet */
/** @typedef {import('inlay/core').PacketCore} PacketCore */

/** Bytes of the longest packet that a slot has room for. */
const LONGEST = abi.SLOT_SIZE - abi.HEADROOM;

/** @typedef {'encapsulate' | 'decapsulate'} Direction */

/**
 * Encapsulates or decapsulates all packets of a pcap, with a core that is as it was made.
 * @param {PacketCore} core
 * @param {Direction} direction
 * @param {{ local: string, overlay: string, underlay: string }} mesh the VM's own address, and the prefixes that all VMs have
 * @param {Uint8Array} input
 * @param {string} [name] what errors call the pcap
 * @returns {{ pcap: Uint8Array, counters: string }} what became of them, and the counters as lines
 */
export function forwarded(core, direction, { local, overlay, underlay }, input, name) {
  core.configure({ local: ipv4(local), mappings: [mapping(overlay, underlay)] });
  const out = new PcapWriter();
  /** @type {Packet[]} */
  let batch = [];
  let skipped = 0;
  for (const packet of readPcap(input, name)) {
    if (packet.bytes.length > LONGEST) skipped++;
    else if (batch.push(packet) === abi.BATCH_SIZE) {
      forwardBatch(core, direction, batch, out);
      batch = [];
    }
  }
  if (batch.length > 0) forwardBatch(core, direction, batch, out);
  return { pcap: out.bytes, counters: `${countersOf(core, direction)}${skipped > 0 ? `skipped ${skipped}\n` : ''}` };
}

/**
 * @param {PacketCore} core
 * @param {Direction} direction
 * @param {Packet[]} batch
 * @param {PcapWriter} out
 */
function forwardBatch(core, direction, batch, out) {
  const time = /** @type {Packet} */ (batch[0]);
  const now = time.seconds * 1000 + time.microseconds / 1000;
  for (const [i, { bytes }] of batch.entries()) core.put(i, bytes);
  // A call ends before the first packet for whose messages there is no room: they are written, and it goes on from there.
  for (let first = 0; first < batch.length; ) {
    first = core[direction](first, batch.length, now);
    for (const message of core.messages.all()) out.add(time, core.messages.bytes(message));
    // ICMP messages to containers: a VM writes them to the device that the packets came from.
    for (const reply of core.messages.replies()) out.add(time, core.messages.bytes(reply));
  }
}

/**
 * What the core has counted, a line each; drops by their verdicts.
 * @param {PacketCore} core
 * @param {Direction} direction
 */
function countersOf(core, direction) {
  const { received, forwarded, drops } = core.counters(direction === 'encapsulate' ? 'outbound' : 'inbound');
  const dropped = drops.flatMap((packets, reason) => (packets > 0 ? [`drop ${-reason} ${packets}\n`] : []));
  return `received ${received}\nforwarded ${forwarded}\n${dropped.join('')}`;
}

/**
 * The same for people: drops by their names.
 * @param {string} counters
 */
export function namedCounters(counters) {
  return counters.replace(/^drop (-\d+)/gm, (_, verdict) => `dropped as ${verdictName(Number(verdict))}:`);
}
