/** The packet core: a pure function over bytes in the module's own memory. docs/abi.md is its reference. */
import { BATCH_SIZE, DROP_BAD_DESCRIPTOR, FORWARD, INBOUND_COUNTERS, OUTBOUND_COUNTERS } from '../src/core/abi';
import { setConfig } from './config';
import { count as countPacket } from './counters';
import { descriptor, isValid, setVerdict } from './descriptor';
import { decapsulatePacket } from './inbound';
import { add, covering, vmIn } from './mapping';
import { encapsulatePacket } from './outbound';
import { beginChanges, expireIdle } from './tunnels';

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

export function configure(local: u32, keyed: i32, key: u32, ttl: u32): void {
  setConfig(local, keyed !== 0, key, ttl);
}

export function addMapping(overlay: u32, overlayLength: i32, underlay: u32, underlayLength: i32): i32 {
  return add(overlay, overlayLength, underlay, underlayLength);
}

export function vmOf(overlayAddress: u32): u32 {
  return vmIn(covering(overlayAddress), overlayAddress);
}

export function encapsulate(count: i32, now: f64): i32 {
  return handle(true, count, now);
}

export function decapsulate(count: i32, now: f64): i32 {
  return handle(false, count, now);
}

export function expire(before: f64): i32 {
  beginChanges();
  return expireIdle(before);
}

function handle(outbound: bool, count: i32, now: f64): i32 {
  beginChanges();
  const counters = outbound ? OUTBOUND_COUNTERS : INBOUND_COUNTERS;
  const n = min(count, BATCH_SIZE);
  let forwarded = 0;
  for (let i = 0; i < n; i++) {
    const d = descriptor(i);
    let result = DROP_BAD_DESCRIPTOR;
    if (isValid(d)) result = outbound ? encapsulatePacket(d, now) : decapsulatePacket(d, now);
    setVerdict(d, min(result, FORWARD));
    countPacket(counters, result);
    if (result >= FORWARD) forwarded++;
  }
  return forwarded;
}
