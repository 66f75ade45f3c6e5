/** Encapsulating to many VMs: what a packet costs should not depend on how many tunnels are open. */
import { abi } from 'inlay/core';
import { udpPacket } from './packets.mjs';

/** Every case sends this many packets in turn, so that only the number of VMs differs, and not what the packets do to the caches. */
const PACKETS = 65536;
const BATCH = abi.BATCH_SIZE;
const SIZE = 64; // bytes of a packet
/** From one packet to the next, bytes: with room for the outer headers, all of them fit where the slots are. */
const STRIDE = 128;
const FIRST = abi.SLOTS + abi.HEADROOM;

/** 2^20 VMs with 14 containers each. */
const MAPPING = { overlay: 0x0a000000, overlayLength: 8, underlay: 0xac100000, underlayLength: 12 };
const CONTAINER_BITS = 4;
const LOCAL = 0xffffe; // number of this VM: above all others, and not that of the broadcast address
const underlay = (vm) => (MAPPING.underlay | vm) >>> 0;
const overlay = (vm) => MAPPING.overlay + (vm << CONTAINER_BITS) + 2;

const name = (tunnels) => `encapsulate ${SIZE} B, ${tunnels.toLocaleString('en')} tunnel${tunnels > 1 ? 's' : ''}`;

export function tunnelCase(tunnels) {
  const packets = packetsTo(tunnels);
  return {
    name: name(tunnels),
    direction: 'outbound',
    per: { '': BATCH },
    // The baseline that the last rows of the table refer to.
    ...(tunnels > 1 ? { comparedTo: name(1) } : {}),
    prepare(core) {
      core.configure({ local: underlay(LOCAL), mappings: [MAPPING] });
      core.attach({});
      core.bytes.set(packets, FIRST);
      const batches = describe(core);
      const descriptors = new Uint32Array(core.memory, abi.DESCRIPTORS, (BATCH * abi.DESCRIPTOR_SIZE) / 4);
      let next = 0;
      const refresh = () => {
        descriptors.set(batches[next]);
        next = (next + 1) % batches.length;
      };
      let now = 1;
      const run = () => core.encapsulate(0, BATCH, now);
      for (let i = 0; i < batches.length; i++) {
        refresh();
        run(); // Opens the tunnels, as fast as one source may.
        now += BATCH * abi.LEASE_INTERVAL;
      }
      hear(core);
      const check = () => {
        if (core.tunnels.count !== tunnels) throw new Error(`${core.tunnels.count} tunnels are open, not ${tunnels}`);
      };
      return { direction: 'outbound', packets: BATCH, messages: BATCH, run, refresh, check };
    },
  };
}

/** As if every VM had sent something: no tunnel needs a lease. */
function hear(core) {
  const view = new DataView(core.memory);
  for (let i = 0; i < abi.TUNNEL_CAPACITY; i++) {
    if (view.getUint32(abi.TUNNEL_KEYS + 4 * i, true) === 0) continue;
    view.setFloat64(abi.TUNNELS + i * abi.TUNNEL_SIZE + abi.TUNNEL_INBOUND_PACKETS, 1, true);
  }
}

/** The packets in a row, STRIDE bytes apart. */
function packetsTo(tunnels) {
  const bytes = new Uint8Array(PACKETS * STRIDE);
  for (const [i, number] of shuffled(PACKETS).entries()) {
    bytes.set(udpPacket(SIZE, overlay(LOCAL), overlay(1 + (number % tunnels))), i * STRIDE);
  }
  return bytes;
}

/** The descriptors of each batch. */
function describe(core) {
  const words = new Uint32Array(core.memory, abi.DESCRIPTORS, (BATCH * abi.DESCRIPTOR_SIZE) / 4);
  return Array.from({ length: PACKETS / BATCH }, (_, batch) => {
    for (let i = 0; i < BATCH; i++) core.describe(i, SIZE, FIRST + (batch * BATCH + i) * STRIDE);
    return words.slice();
  });
}

/** The numbers below `count` in an order that looks random and is always the same. */
function shuffled(count) {
  const numbers = Array.from({ length: count }, (_, i) => i);
  let state = 1;
  for (let i = count - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const other = Math.floor((state / 2 ** 32) * (i + 1));
    [numbers[i], numbers[other]] = [numbers[other], numbers[i]];
  }
  return numbers;
}
