/** What `configure` and `attach` were told, kept in memory where every host can see it. */
import {
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
  ENCAPSULATION_GRE,
  ENCAPSULATION_GRE_UDP,
  MAX_PORTS,
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
} from '../src/core/abi';

const KNOWN_OFFLOADS: i32 = OFFLOAD_VIRTIO | OFFLOAD_UDP_SEGMENT | OFFLOAD_UDP_MERGE | OFFLOAD_GRE_SEGMENT;

const KNOWN_OPTIONS: i32 =
  OPTION_KEY |
  OPTION_CHECKSUM |
  OPTION_SEQUENCE |
  OPTION_TTL_INHERIT |
  OPTION_ECN_COMPATIBILITY |
  OPTION_DSCP_UNIFORM |
  OPTION_MAY_FRAGMENT |
  OPTION_CLAMP_MSS;

/** Sets everything anew, but what the devices can do, and the lengths, which `setLengths` is to set then; no mapping is left. */
export function setConfig(local: u32, options: i32, key: u32, ttl: u32, dscp: u32, encapsulation: i32): void {
  store<u32>(CONFIG + CONFIG_LOCAL, local);
  store<i32>(CONFIG + CONFIG_OPTIONS, options & KNOWN_OPTIONS);
  store<u32>(CONFIG + CONFIG_KEY, (options & OPTION_KEY) !== 0 ? key : 0);
  store<u32>(CONFIG + CONFIG_TTL, ttl & 0xff);
  const known = encapsulation === ENCAPSULATION_GRE_UDP ? ENCAPSULATION_GRE_UDP : ENCAPSULATION_GRE;
  store<u32>(CONFIG + CONFIG_ENCAPSULATION, known);
  memory.fill(CONFIG + CONFIG_MTU, 0, CONFIG_SIZE - CONFIG_MTU);
  store<u32>(CONFIG + CONFIG_DSCP, dscp & 0x3f);
  setMappingCount(0);
}

/** Notes the bytes that the outer headers add, and those of the longest inner packet that fits the underlay. */
export function setLengths(overhead: i32, mtu: i32): void {
  store<i32>(CONFIG + CONFIG_OVERHEAD, overhead);
  store<i32>(CONFIG + CONFIG_MTU, mtu);
}

/** Notes what the host's devices can do. */
export function setDevices(base: u64, offloads: i32, ports: i32): void {
  store<u64>(CONFIG + CONFIG_BASE, base);
  store<i32>(CONFIG + CONFIG_OFFLOADS, offloads & KNOWN_OFFLOADS);
  store<i32>(CONFIG + CONFIG_PORTS, min(max(ports, 1), MAX_PORTS));
}

/** This VM's underlay address. */
export function local(): u32 {
  return load<u32>(CONFIG + CONFIG_LOCAL);
}

/** The OPTION_ bits. */
export function options(): i32 {
  return load<i32>(CONFIG + CONFIG_OPTIONS);
}

export function hasOption(option: i32): bool {
  return (options() & option) !== 0;
}

export function key(): u32 {
  return load<u32>(CONFIG + CONFIG_KEY);
}

/** Outer time to live, where it is not the inner one. */
export function ttl(): u32 {
  return load<u32>(CONFIG + CONFIG_TTL);
}

/** Outer DSCP, where it is not the inner one. */
export function dscp(): u32 {
  return load<u32>(CONFIG + CONFIG_DSCP);
}

/** Whether packets go out as GRE-in-UDP, the outer IPv4 and UDP headers being the kernel's. */
export function isGreUdp(): bool {
  return load<u32>(CONFIG + CONFIG_ENCAPSULATION) === ENCAPSULATION_GRE_UDP;
}

export function hasOffload(offload: u32): bool {
  return (load<u32>(CONFIG + CONFIG_OFFLOADS) & offload) !== 0;
}

/** Source ports of GRE-in-UDP. */
export function ports(): u32 {
  return load<u32>(CONFIG + CONFIG_PORTS);
}

/** Bytes of the longest inner packet that fits the underlay. */
export function mtu(): i32 {
  return load<i32>(CONFIG + CONFIG_MTU);
}

/** Bytes that the outer headers add to a packet, those of the kernel's among them. */
export function overhead(): i32 {
  return load<i32>(CONFIG + CONFIG_OVERHEAD);
}

export function mappingCount(): i32 {
  return load<i32>(CONFIG + CONFIG_MAPPINGS);
}

export function setMappingCount(count: i32): void {
  store<i32>(CONFIG + CONFIG_MAPPINGS, count);
}
