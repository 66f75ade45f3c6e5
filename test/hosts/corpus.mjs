/** What every host is to make the same of: two pcaps of packets from a seed, and what the twin in TypeScript makes of them. */
import { createHash } from 'node:crypto';
import { PcapWriter } from '../../examples/javascript/pcap.js';
import { Random } from '../fuzz/random.mjs';
import { Traffic } from './traffic.mjs';

export const DIRECTIONS = ['encapsulate', 'decapsulate'];
/** s; where the time stamps begin. */
const FIRST_SECOND = 1_780_000_000;

/** Half of `packets` for each direction, as pcaps. */
export function makeCorpus(seed, packets) {
  const pcaps = DIRECTIONS.map((direction, i) => {
    const random = new Random(seed * 2 + i);
    return [direction, makePcap(random, direction === 'encapsulate', Math.ceil(packets / 2))];
  });
  return Object.fromEntries(pcaps);
}

function makePcap(random, isOutbound, packets) {
  const traffic = new Traffic(random, isOutbound);
  const pcap = new PcapWriter();
  let time = 0;
  for (let i = 0; i < packets; i++) {
    // us; mostly busy, now and then quiet for longer than a lease lasts.
    time += random.chance(0.05) ? random.below(6_000_000) : random.below(400);
    const { start, end } = traffic.next();
    const seconds = FIRST_SECOND + Math.floor(time / 1e6);
    pcap.add({ seconds, microseconds: time % 1e6 }, traffic.data.subarray(start, end));
  }
  return pcap.bytes;
}

/** What is compared: all bytes that came out, and what was counted. `outcomes`: of each direction `pcap` and `counters`. */
export function digest(outcomes) {
  const hash = createHash('sha256');
  for (const direction of DIRECTIONS) hash.update(outcomes[direction].pcap).update(outcomes[direction].counters);
  return hash.digest('hex');
}
