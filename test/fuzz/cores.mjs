/** All that the fuzzer knows of the core's interface (docs/abi.md), but for what view.mjs reads in memory. */
import { readFileSync } from 'node:fs';
import { abi, DROP_REASONS, wasmCore } from 'inlay/core';
import { typescriptCore } from 'inlay/core/typescript';

const load = (name) => wasmCore(new WebAssembly.Module(readFileSync(new URL(`../../build/${name}`, import.meta.url))));

/** Both twins; of the Wasm core, the build with SIMD or that without. */
export const makeTwins = (scalar) => [load(scalar ? 'core-scalar.wasm' : 'core.wasm'), typescriptCore()];

/** What a batch may be for, and the call. */
export const DIRECTIONS = {
  outbound: (core, first, count, now) => core.encapsulate(first, count, now),
  inbound: (core, first, count, now) => core.decapsulate(first, count, now),
  icmp: (core, first, count, now) => core.learn(first, count, now),
};

const IPV4 = 'bad-descriptor truncated not-ipv4 bad-header-length bad-total-length bad-header-checksum';
/** The reasons for which each of them may drop a packet. */
const REASONS = {
  outbound: `${IPV4} foreign-source no-mapping own-slice reserved-address too-long bad-offload tiny-segments
    too-many-tunnels too-big nested-gre not-written`,
  inbound: `${IPV4} not-gre fragment not-for-us foreign-underlay gre-version gre-flags gre-checksum gre-protocol gre-key
    spoofed-source foreign-destination reserved-address nested-gre gre-sequence ecn not-written too-long merged`,
  icmp: `${IPV4} fragment not-for-us icmp-checksum foreign-icmp`,
};
const reasonOf = (name) => DROP_REASONS.find((reason) => reason.name === name);
const reasonsOf = (direction) => REASONS[direction].split(/\s+/).map(reasonOf);

/** Counters by direction: where they are, which drops there may be, and what else is counted there. */
export const COUNTERS = Object.entries({
  outbound: [abi.OUTBOUND_COUNTERS, { suppressed: abi.COUNTERS_SUPPRESSED }],
  inbound: [abi.INBOUND_COUNTERS, { anomalies: abi.COUNTERS_ANOMALIES }],
  icmp: [abi.ICMP_COUNTERS, {}],
}).map(([direction, [start, others]]) => ({ direction, start, others, reasons: reasonsOf(direction) }));

/** Ranges of memory in which both must have the same after every call: all that is small. */
export const ANSWERS = [
  [0, abi.SCRATCH],
  [abi.SCRATCH + abi.SCRATCH_SIZE, abi.IOVS],
];
/** Where both must have the same, whatever lay around the packets. */
export const EVERYTHING = [
  [0, abi.SCRATCH],
  [abi.SCRATCH + abi.SCRATCH_SIZE, abi.SLOTS],
];
/** What the host says, which no call may change, and what nobody uses. */
export const SETTINGS = [0, abi.OUTBOUND_COUNTERS];
/** Where a packet may begin, where all must end, and how much before a packet may become outer headers. */
export const [LEAST, MOST, HEADROOM] = [abi.SLOTS + abi.HEADROOM - abi.VIRTIO_SIZE, abi.MEMORY_SIZE, abi.HEADROOM];

const REGIONS =
  `CONFIG MAPPINGS OUTBOUND_COUNTERS INBOUND_COUNTERS ICMP_COUNTERS CHANGES MESSAGE_COUNTS SCRATCH REPLY_BUCKETS
  RELAY_BUCKETS REPLIES
  DESCRIPTORS CONTENTS NAMES CONTROLS MESSAGE_TABLE IOVS HEADERS TUNNEL_KEYS TUNNELS SLOTS`
    .split(/\s+/)
    .map((name) => ({ name, start: abi[name] }))
    .sort((a, b) => b.start - a.start);

/** Where in memory that is, for people. */
export function placeName(address) {
  const region = REGIONS.find(({ start }) => start <= address);
  return region ? `${region.name} + ${address - region.start}` : `${address}`;
}

export const DESCRIPTOR_WORDS = abi.DESCRIPTOR_SIZE / 4;
/** In descriptors, what a core may write. */
const ANSWERED = [abi.DESCRIPTOR_VERDICT / 4, abi.DESCRIPTOR_PEER / 4];

/** The first word of the descriptors that is not as it was before, though the core may not write it; -1 if there is none. */
export function changedWord(descriptors, before) {
  for (let i = 0; i < descriptors.length; i++) {
    if (descriptors[i] !== before[i] && !ANSWERED.includes(i % DESCRIPTOR_WORDS)) return i;
  }
  return -1;
}

/** Packets by direction and verdict since the last reset, `forward` or the drop reason, and what else is counted. */
export function verdictsOf({ floats }) {
  const verdicts = {};
  for (const { direction, start, others, reasons } of COUNTERS) {
    verdicts[`${direction} forward`] = floats[(start + abi.COUNTERS_FORWARDED) / 8];
    for (const { verdict, name } of reasons) {
      verdicts[`${direction} ${name}`] = floats[(start + abi.COUNTERS_DROPS) / 8 - verdict];
    }
    for (const [name, offset] of Object.entries(others))
      verdicts[`${direction} ${name}`] = floats[(start + offset) / 8];
  }
  return verdicts;
}
