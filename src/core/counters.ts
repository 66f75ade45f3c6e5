/** What the core has counted, of one direction. */
import * as abi from './abi.ts';

/** One direction's counters. `received = forwarded + sum(drops)`, always. */
export interface DirectionCounters {
  received: number;
  forwarded: number;
  /** Bytes of the forwarded inner packets. */
  bytes: number;
  /** Packets by drop reason: index r holds those with verdict -r. */
  drops: number[];
  /** ICMP messages to containers that were made, and those that were not because there were too many (outbound). */
  replies: number;
  suppressed: number;
  /** Forwarded packets with a combination of ECN fields that should not occur (inbound; RFC 6040 §4.2). */
  anomalies: number;
}

/** What has counters of its own; `icmp` are ICMP messages from the underlay. */
export type Direction = 'outbound' | 'inbound' | 'icmp';

const COUNTERS = { outbound: abi.OUTBOUND_COUNTERS, inbound: abi.INBOUND_COUNTERS, icmp: abi.ICMP_COUNTERS };

/** The counters of one direction, copied; `floats` views all of memory. */
export function countersIn(floats: Float64Array, direction: Direction): DirectionCounters {
  const drops = (COUNTERS[direction] + abi.COUNTERS_DROPS) / 8;
  return {
    received: counterIn(floats, direction, abi.COUNTERS_RECEIVED),
    forwarded: counterIn(floats, direction, abi.COUNTERS_FORWARDED),
    bytes: counterIn(floats, direction, abi.COUNTERS_BYTES),
    drops: Array.from(floats.subarray(drops, drops + abi.VERDICTS)),
    replies: counterIn(floats, direction, abi.COUNTERS_REPLIES),
    suppressed: counterIn(floats, direction, abi.COUNTERS_SUPPRESSED),
    anomalies: counterIn(floats, direction, abi.COUNTERS_ANOMALIES),
  };
}

/** One counter: that at `offset` bytes of the direction's record. */
export function counterIn(floats: Float64Array, direction: Direction, offset: number): number {
  return floats[(COUNTERS[direction] + offset) / 8] as number;
}
