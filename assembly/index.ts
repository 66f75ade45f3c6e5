/** The packet core: a pure function over bytes in the module's own memory. docs/abi.md is its reference. */
import { BATCH_SIZE, INBOUND_SHARES, OUTBOUND_SHARES, SCRATCH, SCRATCH_SIZE } from '../src/core/abi';
import { setConfig, setMtu } from './config';
import { descriptor, setVerdict } from './descriptor';
import { measureHeaders, overhead } from './encapsulation';
import { decapsulatePackets, likelySender, wantInbound } from './inbound';
import { MAX_TOTAL_LENGTH } from './ipv4';
import { learnFrom, narrowTunnel } from './learn';
import { closeFlows } from './merge';
import { clearMessages, NO_ROOM } from './messages';
import { encapsulatePacket, likelyReceiver, wantOutbound } from './outbound';
import { MIN_MTU } from './path';
import { reachVm, refuseMessage } from './refuse';
import { endShares, setLevel } from './share';
import { clearChanges, expireTunnels, isTableLarge, warmTunnels } from './tunnels';

// Hosts in other languages read the layout from the module.
export {
  ABI_VERSION,
  ALL_MESSAGES,
  BATCH_SIZE,
  CARGO_SIZE,
  CARGOS,
  CHANGES,
  CONTROL_ITEM_SIZE,
  CONTROL_SIZE,
  CONTROLS,
  DESCRIPTOR_SIZE,
  DESCRIPTORS,
  ENCAPSULATION_GRE,
  ENCAPSULATION_GRE_UDP,
  GRE_UDP_PORT,
  HEADROOM,
  ICMP_COUNTERS,
  INBOUND_COUNTERS,
  IOV_SIZE,
  IOVS,
  IOVS_PER_MESSAGE,
  LEAST_PATH_MTU,
  MAX_PORTS,
  MEMORY_SIZE,
  MESSAGE_COUNTS,
  MESSAGE_SIZE,
  MESSAGE_TABLE,
  MESSAGES,
  MESSAGES_PER_PORT,
  NAME_SIZE,
  NAMES,
  NOT_MERGED,
  OFFLOAD_GRE_SEGMENT,
  OFFLOAD_UDP_MERGE,
  OFFLOAD_UDP_SEGMENT,
  OFFLOAD_VIRTIO,
  OPTION_CHECKSUM,
  OPTION_CLAMP_MSS,
  OPTION_DSCP_UNIFORM,
  OPTION_ECN_COMPATIBILITY,
  OPTION_KEY,
  OPTION_MAY_FRAGMENT,
  OPTION_SEQUENCE,
  OPTION_TTL_INHERIT,
  OUTBOUND_COUNTERS,
  REPLY_PORT,
  SLOT_SIZE,
  SLOTS,
  TUNNEL_CAPACITY,
  TUNNEL_KEYS,
  TUNNEL_SIZE,
  TUNNELS,
  VERDICTS,
  VIRTIO_SIZE,
} from '../src/core/abi';

export { addMapping, vmOf } from './mapping';
export { attach } from './messages';

/** Where the VMs of the packets to come are noted, at the end of SCRATCH. */
const VMS: usize = SCRATCH + SCRATCH_SIZE - 4 * BATCH_SIZE;

export function configure(local: u32, options: i32, key: u32, ttl: u32, dscp: u32, encapsulation: i32, mtu: i32): void {
  setConfig(local, options, key, ttl, dscp, encapsulation);
  measureHeaders();
  setMtu(min(max(mtu, MIN_MTU), MAX_TOTAL_LENGTH - overhead()));
}

export function share(inbound: i32, count: i32, divisor: i32): i32 {
  const end = clamp(count, BATCH_SIZE);
  for (let i = 0; i < end; i++) {
    if (inbound !== 0) wantInbound(descriptor(i));
    else wantOutbound(descriptor(i));
  }
  return setLevel(inbound !== 0 ? INBOUND_SHARES : OUTBOUND_SHARES, divisor);
}

export function encapsulate(first: i32, count: i32, now: f64): i32 {
  clearChanges();
  clearMessages();
  const end = clamp(count, BATCH_SIZE);
  const start = clamp(first, end);
  if (isTableLarge()) {
    for (let i = start; i < end; i++) store<u32>(VMS + <usize>(4 * i), likelyReceiver(descriptor(i)));
    warmTunnels(VMS + <usize>(4 * start), end - start);
  }
  for (let i = start; i < end; i++) {
    const verdict = encapsulatePacket(descriptor(i), now);
    if (verdict === NO_ROOM) return i;
    setVerdict(descriptor(i), verdict);
  }
  endShares(OUTBOUND_SHARES);
  return end;
}

export function decapsulate(first: i32, count: i32, now: f64): i32 {
  clearChanges();
  clearMessages();
  const end = clamp(count, BATCH_SIZE);
  const start = clamp(first, end);
  if (isTableLarge()) {
    for (let i = start; i < end; i++) store<u32>(VMS + <usize>(4 * i), likelySender(descriptor(i)));
    warmTunnels(VMS + <usize>(4 * start), end - start);
  }
  let i = start;
  for (; i < end; i++) {
    const verdict = decapsulatePackets(descriptor(i), now);
    if (verdict === NO_ROOM) break;
    setVerdict(descriptor(i), verdict);
  }
  closeFlows();
  if (i === end) endShares(INBOUND_SHARES);
  return i;
}

export function learn(first: i32, count: i32, now: f64): i32 {
  clearChanges();
  clearMessages();
  const end = clamp(count, BATCH_SIZE);
  for (let i = clamp(first, end); i < end; i++) setVerdict(descriptor(i), learnFrom(descriptor(i), now));
  return end;
}

export function narrow(vm: u32, mtu: i32, now: f64): void {
  clearChanges();
  narrowTunnel(vm, mtu, now);
}

export function refuse(message: i32, code: i32, now: f64): void {
  refuseMessage(message, code, now);
}

export function reach(vm: u32, now: f64): void {
  reachVm(vm, now);
}

function clamp(value: i32, most: i32): i32 {
  return max(min(value, most), 0);
}

export function expire(before: f64): i32 {
  clearChanges();
  return expireTunnels(before);
}
