/** The packet core: a pure function over bytes in the module's own memory. docs/abi.md is its reference. */
import {
  BATCH_SIZE,
  COUNTERS_BYTES,
  COUNTERS_DROPS,
  COUNTERS_FORWARDED,
  COUNTERS_RECEIVED,
  DROP_BAD_DESCRIPTOR,
  FORWARD,
  INBOUND_COUNTERS,
  OUTBOUND_COUNTERS,
} from '../src/core/abi';
import { addF64 } from './bytes';
import { descriptor, isInside, setVerdict } from './descriptor';
import { decapsulatePacket } from './inbound';
import { encapsulatePacket } from './outbound';
import { clearChanges, expireTunnels } from './tunnels';

// Hosts in other languages read the layout from the module.
export {
  ABI_VERSION,
  BATCH_SIZE,
  CHANGES,
  DESCRIPTOR_SIZE,
  DESCRIPTORS,
  HEADROOM,
  INBOUND_COUNTERS,
  MEMORY_SIZE,
  OUTBOUND_COUNTERS,
  SLOT_SIZE,
  SLOTS,
  TUNNEL_CAPACITY,
  TUNNEL_KEYS,
  TUNNEL_SIZE,
  TUNNELS,
  VERDICTS,
} from '../src/core/abi';

export { configure } from './config';
export { addMapping, vmOf } from './mapping';

export function encapsulate(count: i32, now: f64): i32 {
  return run(OUTBOUND_COUNTERS, count, now);
}

export function decapsulate(count: i32, now: f64): i32 {
  return run(INBOUND_COUNTERS, count, now);
}

export function expire(before: f64): i32 {
  clearChanges();
  return expireTunnels(before);
}

/** Handles the first `count` packets in one direction, which its counters' place names; answers how many have FORWARD. */
function run(counters: usize, count: i32, now: f64): i32 {
  clearChanges();
  const received = max(min(count, BATCH_SIZE), 0);
  let forwarded = 0;
  let bytes: f64 = 0;
  for (let i = 0; i < received; i++) {
    const d = descriptor(i);
    let result = DROP_BAD_DESCRIPTOR;
    if (isInside(d)) result = counters === OUTBOUND_COUNTERS ? encapsulatePacket(d, now) : decapsulatePacket(d, now);
    if (result < FORWARD) {
      setVerdict(d, result);
      addF64(counters + COUNTERS_DROPS - 8 * result, 1);
    } else {
      setVerdict(d, FORWARD);
      forwarded++;
      bytes += <f64>result;
    }
  }
  addF64(counters + COUNTERS_RECEIVED, <f64>received);
  addF64(counters + COUNTERS_FORWARDED, <f64>forwarded);
  addF64(counters + COUNTERS_BYTES, bytes);
  return forwarded;
}
