/** The packet core: a pure function over bytes in the module's own memory. docs/abi.md is its reference. */
import { BATCH_SIZE, INBOUND_SHARES, OUTBOUND_SHARES, SCRATCH, SCRATCH_SIZE } from '../src/core/abi';
import { clearBlocks } from './blocks';
import { seconds } from './clock';
import { setConfig, setLengths } from './config';
import { descriptor, setVerdict } from './descriptor';
import { measureHeaders } from './encapsulation';
import { decapsulatePackets, demandInbound, likelySender } from './inbound';
import { MAX_TOTAL_LENGTH, MIN_MTU } from './ipv4';
import { learnFrom, narrowTunnel } from './learn';
import { closeFlows } from './merge';
import { clearMessages, NO_ROOM } from './messages';
import { demandOutbound, encapsulatePacket, likelyReceiver } from './outbound';
import { reachVm, refuseMessage } from './refuse';
import { endShares, setLevel } from './shares';
import { clearChanges, expireTunnels, isTableLarge, warmTunnels } from './tunnels';

// Hosts in other languages read the layout from the module.
export {
  ABI_VERSION,
  ALL_MESSAGES,
  BATCH_SIZE,
  CHANGES,
  CHANGES_CLOSED,
  CHANGES_CLOSED_LIST,
  CHANGES_LEARNT,
  CHANGES_LEARNT_LIST,
  CHANGES_OPENED,
  CHANGES_OPENED_LIST,
  CHANGES_SIZE,
  CHANGES_TUNNELS,
  CONFIG,
  CONFIG_BASE,
  CONFIG_DSCP,
  CONFIG_ENCAPSULATION,
  CONFIG_KEY,
  CONFIG_LOCAL,
  CONFIG_MAPPINGS,
  CONFIG_MTU,
  CONFIG_OFFLOADS,
  CONFIG_OPTIONS,
  CONFIG_OVERHEAD,
  CONFIG_PORTS,
  CONFIG_SIZE,
  CONFIG_TTL,
  CONTENT_BYTES,
  CONTENT_FLAGS,
  CONTENT_PACKET,
  CONTENT_PACKETS,
  CONTENT_SIZE,
  CONTENTS,
  CONTROL_ITEM_SIZE,
  CONTROL_SEGMENT,
  CONTROL_SIZE,
  CONTROL_TOS,
  CONTROL_TTL,
  CONTROLS,
  COUNTERS_ANOMALIES,
  COUNTERS_BYTES,
  COUNTERS_DROPS,
  COUNTERS_FORWARDED,
  COUNTERS_RECEIVED,
  COUNTERS_REPLIES,
  COUNTERS_SIZE,
  COUNTERS_SUPPRESSED,
  DESCRIPTOR_ADDRESS,
  DESCRIPTOR_LENGTH,
  DESCRIPTOR_MERGED,
  DESCRIPTOR_PEER,
  DESCRIPTOR_SEGMENT,
  DESCRIPTOR_SIZE,
  DESCRIPTOR_TOS,
  DESCRIPTOR_VERDICT,
  DESCRIPTORS,
  DROP_BAD_DESCRIPTOR,
  DROP_BAD_HEADER_CHECKSUM,
  DROP_BAD_HEADER_LENGTH,
  DROP_BAD_OFFLOAD,
  DROP_BAD_TOTAL_LENGTH,
  DROP_DIVERTED,
  DROP_ECN,
  DROP_FOREIGN_DESTINATION,
  DROP_FOREIGN_ICMP,
  DROP_FOREIGN_SOURCE,
  DROP_FOREIGN_UNDERLAY,
  DROP_FRAGMENT,
  DROP_GRE_CHECKSUM,
  DROP_GRE_FLAGS,
  DROP_GRE_KEY,
  DROP_GRE_PROTOCOL,
  DROP_GRE_SEQUENCE,
  DROP_GRE_VERSION,
  DROP_ICMP_CHECKSUM,
  DROP_MERGED,
  DROP_NESTED_GRE,
  DROP_NO_MAPPING,
  DROP_NOT_FOR_US,
  DROP_NOT_GRE,
  DROP_NOT_IPV4,
  DROP_NOT_WRITTEN,
  DROP_OVER_SHARE,
  DROP_OWN_SLICE,
  DROP_RESERVED_ADDRESS,
  DROP_SPOOFED_SOURCE,
  DROP_TINY_SEGMENTS,
  DROP_TOO_BIG,
  DROP_TOO_LONG,
  DROP_TOO_MANY_TUNNELS,
  DROP_TRUNCATED,
  ENCAPSULATION_GRE,
  ENCAPSULATION_GRE_UDP,
  FLAG_UNHEARD,
  FLAG_WHOLE,
  GRE_UDP_PORT,
  HEADROOM,
  ICMP_COUNTERS,
  INBOUND_COUNTERS,
  IOV_BASE,
  IOV_LENGTH,
  IOV_SIZE,
  IOVS,
  IOVS_PER_MESSAGE,
  LEAST_PATH_MTU,
  MAPPING_CONTAINER_BITS,
  MAPPING_FIRST_VM,
  MAPPING_INDEX_MASK,
  MAPPING_OVERLAY,
  MAPPING_OVERLAY_MASK,
  MAPPING_SIZE,
  MAPPING_UNDERLAY,
  MAPPING_VM_MASK,
  MAPPING_VMS,
  MAPPINGS,
  MAX_MAPPINGS,
  MAX_PORTS,
  MEMORY_SIZE,
  MESSAGE_CONTROL,
  MESSAGE_CONTROL_LENGTH,
  MESSAGE_COUNTS,
  MESSAGE_IOV,
  MESSAGE_IOV_COUNT,
  MESSAGE_LENGTH,
  MESSAGE_NAME,
  MESSAGE_NAME_LENGTH,
  MESSAGE_SIZE,
  MESSAGE_TABLE,
  MESSAGES,
  MESSAGES_PER_PORT,
  NAME_ADDRESS,
  NAME_PORT,
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
  PACKETS_PER_MESSAGE,
  REPLY_PORT,
  SLOT_SIZE,
  SLOTS,
  TUNNEL_CAPACITY,
  TUNNEL_IDENTIFICATION,
  TUNNEL_INBOUND_BYTES,
  TUNNEL_INBOUND_PACKETS,
  TUNNEL_KEYS,
  TUNNEL_LAST_USE,
  TUNNEL_LEASE,
  TUNNEL_OUTBOUND_BYTES,
  TUNNEL_OUTBOUND_PACKETS,
  TUNNEL_PATH_MTU,
  TUNNEL_PATH_MTU_UNTIL,
  TUNNEL_SEQUENCE_IN,
  TUNNEL_SEQUENCE_OUT,
  TUNNEL_SETS,
  TUNNEL_SIZE,
  TUNNEL_UNREACHABLE,
  TUNNEL_UNREACHABLE_UNTIL,
  TUNNEL_WAYS,
  TUNNELS,
  VERDICTS,
  VIRTIO_CHECKSUM_OFFSET,
  VIRTIO_CHECKSUM_START,
  VIRTIO_FLAGS,
  VIRTIO_GSO_SIZE,
  VIRTIO_GSO_TYPE,
  VIRTIO_HEADER_LENGTH,
  VIRTIO_SIZE,
} from '../src/core/abi';

export { addMapping, vmOf } from './mapping';
export { attach } from './messages';

/** Where the VMs of the packets to come are noted, at the end of SCRATCH. */
const VMS: usize = SCRATCH + SCRATCH_SIZE - 4 * BATCH_SIZE;

export function configure(local: u32, options: i32, key: u32, ttl: u32, dscp: u32, encapsulation: i32, mtu: i32): void {
  setConfig(local, options, key, ttl, dscp, encapsulation);
  const overhead = measureHeaders();
  setLengths(overhead, min(max(mtu, MIN_MTU), MAX_TOTAL_LENGTH - overhead));
}

export function share(inbound: i32, count: i32, divisor: i32): i32 {
  const end = clamp(count, BATCH_SIZE);
  for (let i = 0; i < end; i++) {
    if (inbound !== 0) demandInbound(descriptor(i));
    else demandOutbound(descriptor(i));
  }
  return setLevel(inbound !== 0 ? INBOUND_SHARES : OUTBOUND_SHARES, divisor);
}

export function encapsulate(first: i32, count: i32, now: f64): i32 {
  clearChanges();
  clearMessages();
  clearBlocks();
  const end = clamp(count, BATCH_SIZE);
  const start = clamp(first, end);
  if (isTableLarge()) {
    for (let i = start; i < end; i++) store<u32>(VMS + <usize>(4 * i), likelyReceiver(descriptor(i)));
    warmTunnels(VMS + <usize>(4 * start), end - start);
  }
  const second = seconds(now);
  for (let i = start; i < end; i++) {
    const verdict = encapsulatePacket(descriptor(i), now, second);
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
